"""Holds what passes by itself while a page is looked at: its alarm when the server is silent."""

from playwright.sync_api import Page

SILENCE = """(() => {
  const [set, clear] = [setTimeout, clearTimeout];
  window.alarms = new Map();
  window.setTimeout = (act, after, ...more) => {
    if (after !== 5000) return set(act, after, ...more);
    const id = set(() => {}, 0);
    alarms.set(id, act);
    return id;
  };
  window.clearTimeout = (id) => {
    alarms.delete(id);
    clear(id);
  };
})()"""


def hold_silence(page: Page) -> None:
    """Load a page anew, which from then on does not notice a server's silence by itself."""
    page.add_init_script(SILENCE)
    page.reload()
    page.locator("main h1").wait_for()


def notice_silence(page: Page) -> None:
    """Have such a page notice it."""
    page.evaluate("() => [...alarms.values()].at(-1)()")
