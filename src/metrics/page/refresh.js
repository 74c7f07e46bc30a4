const refresh = async () => {
  if (!document.hidden) {
    try {
      const answer = await fetch(location.pathname, { cache: "no-store" });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = fresh.querySelector("main");
      if (!answer.ok || !main) throw new Error("no page of a run");
      document.querySelector("main").replaceWith(main);
      document.title = fresh.title;
      document.body.className = "";
    } catch {
      document.body.className = "gone";
    }
  }
  setTimeout(refresh, 2000);
};
setTimeout(refresh, 2000);
