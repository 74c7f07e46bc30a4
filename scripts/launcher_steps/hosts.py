"""Test hosts: network namespaces with an address each, which a bridge in one more namespace connects. What runs in one
of them shares the files and the processors of this machine, and nothing of its network."""

from __future__ import annotations

import os
import subprocess
from typing import Sequence

NETWORK = "10.77.0"
# Every namespace's name begins with this and the number of the process that made it.
PREFIX = "mpt-launchers"


class Host:
    """One of them."""

    def __init__(self, namespace: str, number: int) -> None:
        self.namespace = namespace
        self.name = f"host-{number}"
        self.address = f"{NETWORK}.{number}"

    def command(self, command: Sequence[str]) -> list[str]:
        """A command line that runs another on this host, which has a name of its own too."""
        named = ["unshare", "--uts", "sh", "-c", f'hostname {self.name} && exec "$@"', "sh"]
        return ["ip", "netns", "exec", self.namespace, *named, *command]

    def cut_off(self) -> None:
        ip("-netns", self.namespace, "link", "set", "eth0", "down")


class Hosts:
    """Some of them, until the end of a `with`."""

    def __init__(self, count: int) -> None:
        name = f"{PREFIX}-{os.getpid()}"
        self.bridge = f"{name}-bridge"
        self.hosts = [Host(f"{name}-{number}", number) for number in range(1, count + 1)]

    def __enter__(self) -> list[Host]:
        try:
            self.make()
        except BaseException:
            self.remove()
            raise
        return self.hosts

    def __exit__(self, *_: object) -> None:
        self.remove()

    def make(self) -> None:
        ip("netns", "add", self.bridge)
        ip("-netns", self.bridge, "link", "add", "bridge", "type", "bridge")
        ip("-netns", self.bridge, "link", "set", "bridge", "up")
        for host in self.hosts:
            ip("netns", "add", host.namespace)
            ends = ["eth0", "netns", host.namespace, "type", "veth", "peer", "name", host.name, "netns", self.bridge]
            ip("link", "add", *ends)
            ip("-netns", self.bridge, "link", "set", host.name, "master", "bridge", "up")
            ip("-netns", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-netns", host.namespace, "link", "set", link, "up")

    def remove(self) -> None:
        """A namespace takes its links with it."""
        for namespace in [*(host.namespace for host in self.hosts), self.bridge]:
            subprocess.run(["ip", "netns", "delete", namespace], stderr=subprocess.DEVNULL, check=False)


def ip(*arguments: str) -> str:
    """Calls `ip`; what it says against it is the error."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def remove_left_over() -> None:
    """Removes the namespaces of calls that were killed."""
    for line in ip("netns", "list").splitlines():
        namespace = line.split()[0] if line.strip() else ""
        parts = namespace.removeprefix(f"{PREFIX}-").split("-")
        if namespace.startswith(f"{PREFIX}-") and not os.path.exists(f"/proc/{parts[0]}"):
            ip("netns", "delete", namespace)
