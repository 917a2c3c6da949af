"""A headless Chromium of the system, driven by its own protocol over two pipes: no driver, no port.

``Browser`` is one process with a profile of its own; ``Tab`` is one page in it. Everything that a
page complains of (an exception, a refused style, a failed request) is kept in ``complaints``.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

WAIT_SECONDS = 60.0

_FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
)

# Chromium reads its orders from descriptor 3, and answers on 4.
_SHIM = """
import os, sys
orders, answers = int(sys.argv[1]), int(sys.argv[2])
os.dup2(orders, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""

_MIDDLE = """(() => {{
    const element = {found};
    element.scrollIntoView({{ block: "center" }});
    const box = element.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
}})()"""


class Browser:
    """One Chromium. Close it, or use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        orders, self._orders = _pipe()
        self._answers, answers = _pipe()
        home = folder / "profile"
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={home}", "about:blank"]
        with (folder / "chromium.err").open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SHIM, str(orders), str(answers), *command],
                pass_fds=(orders, answers),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                env={**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(home)},
            )
        os.close(orders)
        os.close(answers)
        self._number = 0
        self._read = b""
        self._replies: dict[int, dict[str, Any]] = {}
        self.tabs: dict[str, Tab] = {}

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, url: str, width: int = 1280, height: int = 800) -> "Tab":
        """Open a page and wait until it has loaded."""
        target = self.order("Target.createTarget", url="about:blank")["targetId"]
        attached = self.order("Target.attachToTarget", targetId=target, flatten=True)
        tab = Tab(self, attached["sessionId"])
        self.tabs[tab.session] = tab
        for domain in ("Page", "Runtime", "Log"):
            tab.order(f"{domain}.enable")
        tab.resize(width, height)
        tab.order("Page.navigate", url=url)
        tab.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        return tab

    def order(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Give one order and return its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._orders, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + WAIT_SECONDS
        while number not in self._replies:
            self._receive(deadline)
        reply = self._replies.pop(number)
        assert "error" not in reply, (method, reply["error"])
        result: dict[str, Any] = reply["result"]
        return result

    def close(self) -> None:
        """End it, with all its processes."""
        try:
            if self.process.poll() is None:
                self.order("Browser.close")
            self.process.wait(WAIT_SECONDS)
        finally:
            self.process.kill()
            self.process.wait(WAIT_SECONDS)
            os.close(self._orders)
            os.close(self._answers)

    def _receive(self, deadline: float) -> None:
        """Take in what has come, or wait for something to come."""
        ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, "chromium does not answer"
        data = os.read(self._answers, 1 << 20)
        assert data, f"chromium has ended: {self.process.wait(WAIT_SECONDS)}"
        *messages, self._read = (self._read + data).split(b"\0")
        for raw in messages:
            message = json.loads(raw)
            if "id" in message:
                self._replies[message["id"]] = message
            elif (tab := self.tabs.get(message.get("sessionId", ""))) is not None:
                tab.hear(message["method"], message["params"])


class Tab:
    """One page. ``complaints`` are what its console would show in red."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self.session = session
        self.complaints: list[str] = []

    def order(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.order(method, self.session, **parameters)

    def hear(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"].get("exception", parameters)))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(parameters["entry"]["text"])

    def value(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        result = self.order(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, (script, result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, script: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until an expression is true, as JavaScript has it."""
        deadline = time.monotonic() + seconds
        while not self.value(f"!!({script})"):
            if time.monotonic() > deadline:
                raise AssertionError(f"never: {script}\n{self.text()}")
            time.sleep(0.05)

    def text(self) -> str:
        """All that a person reads on the page."""
        return str(self.value("document.body.innerText"))

    def says(self, text: str, within: str = "body") -> None:
        """Wait until some element shows a text."""
        sought = json.dumps(text)
        node = f"document.querySelector({json.dumps(within)})"
        self.until(f"({node}?.innerText ?? '').includes({sought})")

    def click(self, selector: str) -> None:
        """Press the mouse on the middle of an element, as a person would."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.until(f"{found} && !{found}.disabled && {found}.checkVisibility()")
        x, y = self.value(_MIDDLE.format(found=found))
        for kind in ("mousePressed", "mouseReleased"):
            self.order("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key: the focus is where it is."""
        known = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.order("Input.dispatchKeyEvent", type="keyDown", text=text, **known)
        self.order("Input.dispatchKeyEvent", type="keyUp", **known)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        self.order(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def dark(self, dark: bool = True) -> None:
        """Have the system prefer dark, or light."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.order("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path) -> None:
        """The whole page, as the name's ending says: ``.png`` or ``.webp``."""
        kind = path.suffix.removeprefix(".")
        result = self.order("Page.captureScreenshot", captureBeyondViewport=True, format=kind)
        path.write_bytes(base64.b64decode(result["data"]))


def _pipe() -> tuple[int, int]:
    """A pipe away from descriptors 3 and 4."""
    moved = []
    for end in os.pipe():
        moved.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(end)
    return moved[0], moved[1]
