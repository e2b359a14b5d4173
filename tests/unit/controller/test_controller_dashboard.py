"""What Prometheus and Grafana are given in compose/: it fits together, and asks for what there is."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from controller_parts import PaperDriver, fleet_of

from tritonfleet.config import load_fleet
from tritonfleet.controller.metrics import families, sample_names
from tritonfleet.controller.metrics_server import FLEET_PATH, REPLICAS_PATH, state_of

COMPOSE = Path(__file__).parents[3] / "compose"
MODELS = Path(__file__).parents[3] / "model_repository"
METRICS_PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
DASHBOARD = json.loads((COMPOSE / "grafana/dashboards/tritonfleet.json").read_text())
SETTINGS = dict(
    line.split("=", 1) for line in (COMPOSE / ".env").read_text().splitlines() if line and line[0] != "#"
)
METRIC = re.compile(r"\b(?:tritonfleet|nv)_\w+")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target


def labels_of() -> dict[str, set[str]]:
    """Metric → its labels, by the table in docs/metrics.md, which a test of its own holds to the code."""
    rows = re.findall(r"^\| `(tritonfleet_\w+)` \| ([\w, ]*)\|", METRICS_PAGE.read_text(), re.MULTILINE)
    return {name: {label.strip() for label in labels.split(",")} - {""} for name, labels in rows}


@pytest.fixture
async def exported(tmp_path: Path) -> frozenset[str]:
    """The names of a fleet with nothing in it: every family is there all the same."""
    fleet = fleet_of(tmp_path, PaperDriver())
    names = sample_names(families(state_of(fleet, {})))
    await fleet.close()
    return names


def test_the_dashboard_asks_for_what_is_exported_and_leaves_nothing_out(exported: frozenset[str]) -> None:
    asked = {name for _, target in targets() for name in METRIC.findall(target["expr"])}
    asked |= set(METRIC.findall(json.dumps(DASHBOARD["templating"])))
    assert asked - exported == set()
    drawn = {re.sub("_(bucket|count|sum)$", "", name) for name in asked}
    there = {re.sub("_(bucket|count|sum)$", "", name) for name in exported}
    assert there - drawn == set()


def test_labels_that_are_asked_for_exist() -> None:
    known = labels_of()
    for title, target in targets():
        names = {re.sub("_(bucket|count|sum)$", "", name) for name in METRIC.findall(target["expr"])}
        there = set.union(*(known[name] for name in names))
        used = set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", target["expr"]))
        used |= {
            label for words in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in words.split(", ")
        }
        used |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert used - {"le"} <= there, (title, target["expr"])


def test_the_dashboard_is_well_formed() -> None:
    every = DASHBOARD["panels"]
    numbers = [panel["id"] for panel in every]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in every:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert at["x"] + at["w"] <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
    for panel in panels():
        references = [target["refId"] for target in panel["targets"]]
        assert references, f"{panel['title']} draws nothing"
        assert len(references) == len(set(references))
        assert panel["description"], panel["title"]


def test_everything_is_asked_of_the_data_source_that_is_provided() -> None:
    provided = yaml.safe_load((COMPOSE / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    (source,) = provided["datasources"]
    assert source["url"] == "http://127.0.0.1:$PROMETHEUS_PORT"
    wanted = {"type": source["type"], "uid": source["uid"]}
    for panel in panels():
        assert panel["datasource"] == wanted
        assert all(target["datasource"] == wanted for target in panel["targets"])
    assert [variable["datasource"] for variable in DASHBOARD["templating"]["list"]] == [wanted]


def stack() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "docker-compose.yaml").read_text())
    return found


def test_grafana_is_given_the_folders_its_files_speak_of() -> None:
    grafana = stack()["services"]["grafana"]
    provided = yaml.safe_load((COMPOSE / "grafana/provisioning/dashboards/tritonfleet.yaml").read_text())
    mounts = dict(mount.split(":")[:2] for mount in grafana["volumes"])
    folder = provided["providers"][0]["options"]["path"]
    assert mounts["./grafana/dashboards"] == folder
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (COMPOSE / "grafana/dashboards" / Path(home).relative_to(folder)).is_file()
    assert grafana["environment"]["PROMETHEUS_PORT"] == "${PROMETHEUS_PORT}"


def scraped() -> str:
    """The file as Prometheus gets it: what the service's entrypoint makes of the one in compose/."""
    template = (COMPOSE / "prometheus/prometheus.yaml").read_text()
    (substitution,) = re.findall(
        r'sed "s/(\w+)/\$\$(\w+)/"', stack()["services"]["prometheus"]["entrypoint"][2]
    )
    assert substitution[1] in stack()["services"]["prometheus"]["environment"]
    return "\n".join(
        line.replace(substitution[0], SETTINGS[substitution[1]], 1) if "target" in line else line
        for line in template.splitlines()
    )


def test_prometheus_scrapes_where_the_fleet_listens(tmp_path: Path) -> None:
    jobs = yaml.safe_load(scraped())["scrape_configs"]
    assert {job.get("metrics_path", "/metrics") for job in jobs} == {FLEET_PATH, REPLICAS_PATH}
    for name in ("fleet.yaml", "fleet.cpu.yaml"):
        environ = {
            "METRICS_PORT": SETTINGS["METRICS_PORT"],
            "MODEL_REPOSITORY": str(MODELS),
            "TRITON_IMAGE": "t",
        }
        spec = load_fleet(COMPOSE / name, environ)
        targets = [target for job in jobs for config in job["static_configs"] for target in config["targets"]]
        assert set(targets) == {str(spec.metrics.listen)}
        assert spec.router.external  # the service `router` runs it


def test_promtool_takes_the_file_for_valid(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("there is no promtool (Debian: apt-get install prometheus)")
    (tmp_path / "prometheus.yaml").write_text(scraped())
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_is_used_and_every_one_used_is_set() -> None:
    texts = [path.read_text() for path in COMPOSE.glob("docker-compose*.yaml")]
    used = {name for text in texts for name in re.findall(r"(?<!\$)\$\{(\w+)\}", text)}
    assert used == SETTINGS.keys() - {"COMPOSE_PROJECT_NAME"}  # which the tool itself reads
