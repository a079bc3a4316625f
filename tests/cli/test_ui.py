"""`stella ui`: no page of another site can use it, and it ends with all its processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from websockets.sync.client import connect

from stella_assets.pipelines.cli.ui import HostError, PortError, check_address, check_names, shown_address

STELLA = str(Path(sys.executable).with_name("stella"))
EVIL = "http://evil.example"
JSON = {"Content-Type": "application/json"}
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol": "graphql-ws",
}
# As in the background jobs of every script, SIGINT is ignored.
SCRIPT = '"$0" "$@" & echo $!; wait $!; echo $?'


@dataclass
class Ui:
    """A running `stella ui`, started from a script, which prints its process id and at last its exit code."""

    port: int
    script: subprocess.Popen[str]
    process: psutil.Process

    def ask(self, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
        """GET, or POST where there is a body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            connection.request("GET" if body is None else "POST", path, body, named)
            answer = connection.getresponse()
            return answer.status, "" if answer.status == 101 else answer.read().decode()

    def limits(self) -> dict[str, int]:
        """The limits of pools, which a mutation can set."""
        query = "{instance {concurrencyLimits {concurrencyKey slotCount}}}"
        _, found = self.ask("/graphql", json.dumps({"query": query}), **JSON)
        rows = json.loads(found)["data"]["instance"]["concurrencyLimits"]
        return {row["concurrencyKey"]: row["slotCount"] for row in rows}


def mutation(pool: str) -> str:
    return f'mutation {{setConcurrencyLimit(concurrencyKey: "{pool}", limit: 3)}}'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    folder, port = tmp_path_factory.mktemp("ui"), free_port()
    command = ["bash", "-c", SCRIPT, STELLA, "ui", "--port", str(port), "--allow-host", "ui.example"]
    environment = {**os.environ, "STELLA_HOME": str(folder)}
    with (folder / "log").open("w") as log:
        script = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    process = psutil.Process(int(script.stdout.readline()))
    while "The UI is on" not in (folder / "log").read_text():
        assert script.poll() is None, (folder / "log").read_text()
        time.sleep(0.1)
    yield Ui(port, script, process)
    if process.is_running():
        process.terminate()
    script.wait(60)


def test_the_page_of_the_ui_and_programs_can_use_it(ui: Ui):
    own = f"http://127.0.0.1:{ui.port}"
    status, page = ui.ask("/", Accept="text/html", Sec_Fetch_Site="none", Sec_Fetch_Dest="document")
    assert (status, ">Dagster</title>" in page) == (200, True)
    assert ui.ask("/runs", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200  # a link of a wiki
    body = json.dumps({"query": mutation("of_the_page")})
    assert ui.ask("/graphql", body, Origin=own, Sec_Fetch_Site="same-origin", **JSON)[0] == 200
    assert ui.ask("/graphql", json.dumps({"query": mutation("of_a_program")}), **JSON)[0] == 200
    assert {"of_the_page": 3, "of_a_program": 3}.items() <= ui.limits().items()
    assert ui.ask("/graphql", **WEBSOCKET)[0] == 101
    with connect(own.replace("http", "ws") + "/graphql", origin=own, subprotocols=["graphql-ws"]) as channel:
        channel.send(json.dumps({"type": "connection_init"}))
        assert json.loads(channel.recv(timeout=60)) == {"type": "connection_ack"}


def test_a_name_that_was_allowed_can_be_used_behind_a_proxy(ui: Ui):
    body = json.dumps({"query": "{version}"})
    assert ui.ask("/graphql", body, Host="ui.example", Origin="https://ui.example", **JSON)[0] == 200
    assert ui.ask("/graphql", body, Host="ui.example", Origin=EVIL, **JSON)[0] == 403


# What a browser sends for a page of another site: names that were rebound to this address, forms, scripts, pictures.
FOREIGN: dict[str, dict[str, str]] = {
    "rebound name": {"Host": "evil.example", "Origin": EVIL},
    "rebound name, GET": {"Host": "evil.example:3000"},
    "name that only begins like an allowed one": {"Host": "localhost.evil.example"},
    "foreign origin": {"Origin": EVIL},
    "hidden origin": {"Origin": "null"},
    "empty origin": {"Origin": ""},
    "page of another port of this machine": {"Origin": "http://127.0.0.1:8080"},
    "origin that ends like the host": {"Origin": "http://evil.example/127.0.0.1"},
    "old page without an origin": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "empty"},
    "page of the same site": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "image"},
    "frame": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_page_of_another_site_is_refused(case: str, ui: Ui):
    headers, query = FOREIGN[case], mutation("foreign")
    for content in ("application/json", "text/plain; application/json"):
        body = json.dumps({"query": query})
        assert 400 <= ui.ask("/graphql", body, **headers, Content_Type=content)[0] < 500
    for path in (f"/graphql?query={quote(query)}", "/", "/download_debug/x", "/logs/a/out", "/server_info"):
        assert 400 <= ui.ask(path, **headers)[0] < 500
    for path in ("/report_asset_materialization/tiny/release", f"/graphql?query={quote(query)}"):
        assert 400 <= ui.ask(path, "", **headers)[0] < 500
    assert "foreign" not in ui.limits()
    assert 400 <= ui.ask("/graphql", **WEBSOCKET, **headers)[0] < 500


@pytest.mark.parametrize("path", ["/graphql", "/graphql/", "/graphql%0A", "/graphql%0a", "/%67raphql", "//graphql"])
@pytest.mark.parametrize("accept", ["*/*", "image/png"])
def test_a_get_request_changes_nothing_whoever_sends_it(path: str, accept: str, ui: Ui):
    ui.ask(f"{path}?query={quote(mutation('by_get'))}", Accept=accept)
    assert "by_get" not in ui.limits()


def test_no_other_page_can_show_the_ui_in_a_frame(ui: Ui):
    with closing(HTTPConnection("127.0.0.1", ui.port, timeout=60)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().headers["X-Frame-Options"] == "SAMEORIGIN"


@pytest.mark.slow
def test_sigterm_ends_every_process_also_where_a_script_started_it(ui: Ui):
    family = [ui.process, *ui.process.children(recursive=True)]
    assert len(family) >= 5  # the code server, its own child, the webserver and the daemon
    ui.process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=60)
    assert left == []
    # The daemon writes its log there, too, when it has time for it.
    assert ui.script.stdout.read().splitlines()[-1] == "0"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", ui.port)) != 0


@pytest.mark.slow
def test_repeated_signals_at_any_moment_of_the_start_end_everything_and_damage_nothing(tmp_path: Path):
    environment = {**os.environ, "STELLA_HOME": str(tmp_path / "home")}
    command = [STELLA, "ui", "--port", str(free_port())]

    def left() -> list[list[str]]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("STELLA_HOME") == environment["STELLA_HOME"] and process.is_running():
                    found.append(process.cmdline())
        return found

    for number, moment in enumerate([0.1, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 10]):
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        time.sleep(moment)
        for _ in range(3):
            process.send_signal((signal.SIGINT, signal.SIGTERM)[number % 2])
            time.sleep(0.05)
        # Those below 0: it ended before it had anything to end. 130: likewise, with a message.
        try:
            assert process.wait(60) in {0, 130, -signal.SIGINT, -signal.SIGTERM}, moment
        finally:
            process.terminate()  # where it did not end: nothing of it may live on
        assert left() == [], moment
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    while "The UI is on" not in (tmp_path / "log").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    process.terminate()
    assert process.wait(60) == 0


@pytest.mark.parametrize("name", ["https://ui.example", "ui.example:80", "*", "a.*.example", "", "ui.example/", "b\n"])
def test_what_is_not_a_host_name_is_refused(name: str):
    with pytest.raises(HostError, match=r"is not a host name. Give the name alone, without scheme and port, e.g."):
        check_names([name])
    check_names(["gpu-1", "*.ui.example", "192.0.2.1", "[2001:db8::1]"])


@pytest.mark.parametrize(
    ("host", "reason"), [("192.0.2.1", "Cannot assign requested address"), ("a.invalid", "Name or service not known")]
)
def test_an_address_of_another_machine_is_refused(host: str, reason: str):
    with pytest.raises(PortError, match=rf"port 3000 on {host} cannot be used \({reason}\)"):
        check_address(host, 3000)


@pytest.mark.parametrize("host", ["", " "])
def test_an_empty_address_does_not_stand_for_every_address(host: str):
    with pytest.raises(HostError, match=r"--host '.?': is not an address. Give an address of this machine, e.g. 127"):
        check_address(host, free_port())


def test_the_address_that_is_shown_can_be_opened():
    hosts = ["127.0.0.1", "::1", "::", "gpu-1", "2001:db8::1"]
    own = "http://localhost:80"
    assert [shown_address(host, 80) for host in hosts] == [own, own, own, "http://gpu-1:80", "http://[2001:db8::1]:80"]
