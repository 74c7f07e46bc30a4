"""What `scripts/live-page` does: a small training run, and its page in a real browser without a window.

`command` is the whole of it, `page` what is asked of the page, `browser` the browser.
"""
