"""Follow the tutorial as its reader does: block by block, in terminals, files and a browser."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import requests

from tests.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs/tutorial.md"

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What the run of the tests left for its own children.
_OURS = re.compile(r"(COV|DJANGO|PYTEST|PYTHON|VIRTUAL_ENV|DATABASE|TZ$)")


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Yield the page's paragraphs ("prose") and blocks (by their language), in their order."""
    after = 0
    for block in _FENCED.finditer(text):
        yield from _prose(text[after : block.start()])
        yield block[1], block[2]
        after = block.end()
    yield from _prose(text[after:])


def _prose(text: str) -> Iterator[tuple[str, str]]:
    return (("prose", each.strip()) for each in text.split("\n\n") if each.strip())


def with_free_ports(text: str, ports: list[str]) -> str:
    """Return the page with ports that are free on this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _port in ports]
    for port, free in zip(ports, sockets, strict=True):
        assert port in text
        text = text.replace(port, str(free.getsockname()[1]))
        free.close()
    return text


# A run of the tests in the background ignores Ctrl-C, and so would all that it starts.
_SHELL = """
import os, signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp("bash", ["bash", "--norc"])
"""


class Terminal:
    """A shell that somebody types into."""

    def __init__(self, folder: Path, name: str, environment: Mapping[str, str]) -> None:
        self.log = folder.parent / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SHELL],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.typed = 0
        # Ctrl-C ends what runs in the shell, not the shell.
        self.type("trap : INT")

    def output(self) -> str:
        return self.log.read_text()

    def type(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def run(self, block: str) -> str:
        """Type a block, wait until all of it has run, and return what it printed."""
        self.typed += 1
        mark = f"block {self.typed} ended with"
        before = len(self.output())
        self.type(f"set -e\n{block}\necho; echo '{mark}' $?")
        eventually(lambda: mark in self.output() or self.process.poll() is not None, 150)
        printed = self.output()[before:]
        assert f"{mark} 0" in printed, f"{block}\n{printed}"
        return printed

    def press_ctrl_c(self) -> None:
        """Interrupt what runs, and wait until it has ended and the shell is back."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.typed += 1
        mark = f"interrupt {self.typed} is over"
        self.type(f"echo '{mark}'")
        eventually(lambda: mark in self.output(), 60)

    def close(self) -> None:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sent)
                self.process.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self.process.communicate()


class Reader:
    """Somebody who does what the page says; ``done`` counts what by kind."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        binaries = folder.parent / "bin"
        binaries.mkdir()
        python3 = binaries / "python3"
        python3.write_text(f'#!/bin/sh\nexec "{os.path.realpath(sys.executable)}" "$@"\n')
        python3.chmod(0o755)
        self.environment = {k: v for k, v in os.environ.items() if not _OURS.match(k)}
        self.environment |= {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", **environment}
        self.folder = folder
        self.terminals: dict[str, Terminal] = {}
        self.printed = self.prose = ""
        self.done: list[str] = []

    @property
    def project(self) -> Path:
        return self.folder / "tutorial"

    def terminal(self, name: str) -> Terminal:
        if name not in self.terminals:
            self.terminals[name] = Terminal(self.folder, name, self.environment)
        return self.terminals[name]

    def follow(self, text: str) -> None:
        for kind, step in steps(text):
            getattr(self, f"do_{kind}")(step)
            self.done.append(kind)

    def do_shell(self, block: str) -> None:
        other = re.match(r"# in (?:a|the) (second|third) terminal\n", block)
        if other is None:
            self.printed = self.terminal("first").run(block)
        else:
            self.terminal(other[1]).type(block)

    def do_python(self, block: str) -> None:
        named = re.match(r"# ([\w/.]+)(, at the end)?\n", block)
        assert named, f"This block does not say which file it is:\n{block}"
        path = self.project / named[1]
        before = path.read_text() + "\n\n" if named[2] else ""
        path.write_text(before + block)

    do_ini = do_python

    def do_text(self, block: str) -> None:
        """See each line of the block, in this order, where the page says that it is shown."""
        if "second terminal" in self.prose:
            self.sees(block)
        else:
            assert in_order(block, self.printed), f"{block}\nis not in\n{self.printed}"

    def do_prose(self, text: str) -> None:
        self.prose = text
        if "press Ctrl-C" in text.replace("Press", "press"):
            for name in re.findall(r"\b(second|third)\b", text):
                self.terminal(name).press_ctrl_c()
        elif text.startswith("Open <"):
            self.log_in(text)
        elif text.startswith("1. Add an order"):
            self.add_and_look(text)

    def sees(self, block: str) -> None:
        output = self.terminal("second").output
        # Long enough for the attempt after the next one.
        eventually(lambda: in_order(block, output()), 60)

    def log_in(self, text: str) -> None:
        found = re.search(r"<(\S+)> and log in as `(\w+)` with the\s+password `(\w+)`", text)
        assert found
        self.url, user, password = found.groups()
        self.browser = requests.Session()
        self.browser.trust_env = False
        eventually(self.answers, 20)
        page = self.post("login/", username=user, password=password, next="/admin/")
        assert "Signal dispatch" in page
        assert "Deliveries" in page

    def answers(self) -> bool:
        try:
            return self.browser.get(self.url, timeout=10).ok
        except requests.ConnectionError:
            return False

    def get(self, path: str) -> str:
        answer = self.browser.get(self.url + path, timeout=10)
        answer.raise_for_status()
        return answer.text

    def post(self, path: str, **form: str) -> str:
        self.get(path)
        form["csrfmiddlewaretoken"] = self.browser.cookies["csrftoken"]
        answer = self.browser.post(self.url + path, data=form, timeout=10)
        answer.raise_for_status()
        return answer.text

    def add_and_look(self, text: str) -> None:
        form = dict(re.findall(r"(number|status|total) `([\w-]+)`", text))
        assert "was added successfully" in self.post("shop/order/add/", **form)
        self.sees(f"/api/orders/{form['number']} ")
        eventually(lambda: self.get("signal_dispatch/delivery/").count("sd-delivered") == 3, 20)
        rows = set(re.findall(r"/delivery/(\d+)/change/", self.get("signal_dispatch/delivery/")))
        pages = [self.get(f"signal_dispatch/delivery/{pk}/change/") for pk in rows]
        (page,) = [page for page in pages if "orders/A-2" in page]
        assert "could not be reached: Connection refused" in page

    def close(self) -> None:
        for terminal in self.terminals.values():
            terminal.close()


def in_order(block: str, output: str) -> bool:
    """Say whether each line of a block is in a line of the output, in this order."""
    lines = iter(map(words, output.splitlines()))
    return all(any(wanted in line for line in lines) for wanted in map(words, block.splitlines()))


def words(line: str) -> str:
    """Return a line without what makes a table of it: columns are as wide as they have to be."""
    return " ".join(line.split())
