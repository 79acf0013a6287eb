"""A headless Chromium to look at pages with, driven over two pipes: no socket, no driver, no package.

It speaks the browser's own protocol (Chrome DevTools Protocol): JSON texts, each ended by a zero byte.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

# The browser reads at descriptor 3 and writes at 4, which may be in use here: so they are laid out in a child.
_LAUNCH = (
    "import os, sys; r, w = (os.dup(int(a)) for a in sys.argv[1:3]); top = max(r, w, 4);"
    "r, w = os.dup2(r, top + 1), os.dup2(w, top + 2); os.dup2(r, 3); os.dup2(w, 4);"
    "os.execvp(sys.argv[3], sys.argv[3:])"
)


class PageError(Exception):
    """The page's script, or the browser, said no."""


class Page:
    """One page in a browser, and everything it has said and asked for since."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the browser for something, and wait for the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._read, 1 << 20)
            if not more:
                raise PageError("the browser went away")
            self._rest += more
        line, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, params: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(params["args"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(
        self,
        path: Path,
        *,
        width: int = 1280,
        height: int = 800,
        ratio: float = 1,
        light: bool = False,
        frames: int = 1_800,
    ) -> None:
        """Show a file, and wait until it says that it is ready."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "light" if light else "dark"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.errors.clear()
        self.requests.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.until("document.documentElement.dataset.ready === 'true'", frames)
        self.drawn()

    def value(self, expression: str) -> Any:
        """What *expression* of JavaScript is, as JSON; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise PageError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def until(self, condition: str, frames: int = 1_800) -> None:
        """Wait for *condition*, which is looked at once a frame."""
        looked = (
            f"new Promise(done => {{ let left = {frames}; const look = () => {{ let ok = false;"
            f"try {{ ok = !!({condition}); }} catch {{}}"
            "if (ok || !left--) done(ok); else setTimeout(look, 16); }; look(); })"
        )
        if not self.value(looked):
            raise PageError(f"it never came true: {condition}; the page said {self.errors}")

    def drawn(self) -> None:
        """Wait for two frames: what was asked for before is on the screen."""
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def pointer(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Move, press, release or turn the wheel of a mouse."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)
        self.drawn()

    def click(self, x: float, y: float) -> None:
        """Press and release the left button."""
        self.pointer("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.pointer(kind, x, y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key, and let it go."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.drawn()

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)
        self.drawn()

    def picture(self, path: Path | None = None) -> bytes:
        """A picture of the page, as PNG."""
        self.drawn()
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(data)
        return data


@contextmanager
def browser() -> Iterator[Page]:
    """A browser of its own, without a profile, without a network, and gone with the block."""
    if CHROMIUM is None:
        raise PageError("there is no Chromium here")
    ours, theirs = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="memstore-chromium-", ignore_cleanup_errors=True) as profile:
        line = [
            CHROMIUM,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--no-sandbox",
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--hide-scrollbars",
            "about:blank",
        ]
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", _LAUNCH, str(theirs[0]), str(ours[1]), *line],
            pass_fds=(theirs[0], ours[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs[0])
        os.close(ours[1])
        try:
            page = Page(ours[0], theirs[1])
            yield page
            page._session = None
            page.call("Browser.close")
            child.wait(30)
        finally:
            child.kill()
            child.wait()
            os.close(ours[0])
            os.close(theirs[1])
