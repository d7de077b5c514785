"""A headless Chromium that tests drive by the DevTools protocol, over a pipe: no package is needed.

Messages are JSON, each ended by a zero byte; Chromium reads them from its file descriptor 3 and
answers on 4. `Browser("page.html")` opens a file or an address; keys and clicks are those of a
person.
"""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
FLAGS += ["--no-first-run", "--disable-background-networking", "--disable-extensions"]
FLAGS += ["--remote-debugging-pipe", "--hide-scrollbars", "--force-device-scale-factor=1"]
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36}
KEYS |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
TEXT = {"Enter": "\r", " ": " "}
PATIENCE = 60  # seconds, on a busy machine


class Browser:
    """A page of a file, or at an address, open. Use it as a context manager."""

    def __init__(self, file, width=1200, height=900, profile="profile"):
        given, self.answers = os.pipe(), os.pipe()
        self.read, self.write = self.answers[0], given[1]
        # what stands in 3 and 4 here may be another file: the shell puts the pipe there
        shell = f'exec "$@" 3<&{given[0]} 4>&{self.answers[1]}'
        command = [
            "bash",
            "-c",
            shell,
            "-",
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={Path(profile).resolve()}",
        ]
        self.process = subprocess.Popen(
            [*command, "about:blank"],
            pass_fds=(given[0], self.answers[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(given[0])
        os.close(self.answers[1])
        self.numbers, self.buffer, self.session = itertools.count(1), b"", None
        self.requests, self.problems = [], []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        address = file if "://" in str(file) else Path(file).resolve().as_uri()
        self.call("Page.navigate", url=address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)

    def receive(self):
        """The next message, noting requests and problems."""
        while b"\0" not in self.buffer:
            more = os.read(self.read, 1 << 20)
            assert more, "Chromium has gone"
            self.buffer += more
        text, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(text)
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])
        return message

    def call(self, method, **params):
        """Call a method of the protocol; its result."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def evaluate(self, expression):
        """The value of an expression in the page; promises are waited for."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression):
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"{expression}; {self.problems}"
            time.sleep(0.05)

    def resize(self, width, height, mobile=False):
        """Have a screen of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def dark(self, on=True):
        """Prefer dark colours."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def type(self, text):
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, *keys, modifiers=0):
        """Press keys one after the other; modifiers: 1 alt, 2 control, 8 shift."""
        for key in keys:
            code = {"key": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": modifiers}
            text = {"text": TEXT[key]} if key in TEXT and not modifiers else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def click(self, selector):
        """Click in the middle of an element."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        mouse = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **mouse)

    def screenshot(self, path):
        """Write the whole page as a PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(answer["data"]))
