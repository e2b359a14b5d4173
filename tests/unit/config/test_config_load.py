"""A fleet file → FleetSpec, and the very words of every mistake."""

import subprocess
from pathlib import Path

import pytest
from certificates import certificate
from fleet_files import POOL, SMALLEST, Folder

from tritonfleet.config import Address, ConfigError, CpuSlots, load_fleet, pool_hash
from tritonfleet.config.limits_spec import LimitsSpec
from tritonfleet.core.limits import RouterLimits

SHIPPED = Path(__file__).parents[3] / "tritonfleet.yaml"


def test_the_smallest_file(folder: Folder) -> None:
    spec = folder.load(SMALLEST)
    assert (spec.name, spec.driver, spec.devices) == ("demo", "auto", "auto")
    assert spec.router.listen == Address(host="127.0.0.1", port=8001)
    assert spec.pools["main"].model_repository == str(folder.path / "models")
    assert spec.pools["main"].replicas.first_size == 1


def test_everything_at_once(folder: Folder) -> None:
    spec = folder.load("""\
version: 1
name: demo
devices: {cpu: 6}
router: {listen: "[::1]:9001", workers: 2, policy: round_robin, drain_timeout: 1m30s}
pools:
  main:
    model_repository: ./models
    models: [echo]
    replicas: {min: 0, initial: 3, max: 12, per_device: 2}
    triton: {args: [--log-verbose=1], env: {A: "1"}, exit_timeout: 5s}
    health: {interval: 500ms}
logs: {max_size: 1m, keep: 0}
""")
    main = spec.pools["main"]
    assert spec.devices == CpuSlots(cpu=6)
    assert str(spec.router.listen) == "[::1]:9001"
    assert spec.router.drain_timeout == 90.0
    assert (main.replicas.first_size, main.models, main.triton.args) == (3, ("echo",), ("--log-verbose=1",))
    assert (main.health.interval, main.health.failures) == (0.5, 3)
    assert (spec.logs.max_size, spec.logs.keep) == (1 << 20, 0)


@pytest.mark.parametrize(
    ("written", "devices"),
    [("[0, 1]", ("0", "1")), ("[GPU-1a, MIG-2b]", ("GPU-1a", "MIG-2b")), ("auto", "auto")],
)
def test_devices(folder: Folder, written: str, devices: object) -> None:
    text = SMALLEST.replace("models}", "models, replicas: {max: 2}}")
    assert folder.load(text + f"devices: {written}\n").devices == devices


@pytest.mark.parametrize(
    ("devices", "per_device", "most"),
    [("[0]", 1, 1), ("{cpu: 3}", 1, 3), ("[0]", 2, 2), ("{cpu: 9}", 1, 4), ("auto", 1, 4)],
)
def test_a_max_that_nobody_wrote_fits_the_devices(
    folder: Folder, devices: str, per_device: int, most: int
) -> None:
    spec = folder.load(POOL + f"    replicas: {{per_device: {per_device}}}\ndevices: {devices}\n")
    assert spec.pools["main"].replicas.max == most


def test_a_max_that_nobody_wrote_fits_the_groups(folder: Folder) -> None:
    spec = folder.load(POOL + "    replicas: {devices_per_replica: 2}\ndevices: {cpu: 5}\n")
    replicas = spec.pools["main"].replicas
    assert (replicas.max, replicas.share, replicas.room(5)) == (2, 2.0, 2)


def test_another_number_of_devices_is_another_launch(folder: Folder) -> None:
    one, same, two = (
        pool_hash(folder.load(POOL + f"    replicas: {{{written}}}\n"), "main")
        for written in ("max: 2", "devices_per_replica: 1", "devices_per_replica: 2")
    )
    assert one == same != two


def test_relative_paths_start_at_the_files_folder(
    folder: Folder, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.path / "fleet.yaml").write_text(SMALLEST)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "link").symlink_to(folder.path)
    monkeypatch.chdir(elsewhere)
    found = {
        load_fleet(file, {}).pools["main"].model_repository
        for file in (Path("link/fleet.yaml"), folder.path / "fleet.yaml")
    }
    assert found == {str(folder.path / "models")}


def test_the_shipped_file_is_the_newcomers() -> None:
    spec = load_fleet(SHIPPED, {"TRITONFLEET_PORT": "8101"})
    assert (spec.name, spec.devices, str(spec.router.listen)) == ("demo", CpuSlots(cpu=4), "127.0.0.1:8101")
    assert (spec.pools["main"].replicas.first_size, spec.pools["main"].replicas.max) == (2, 4)
    assert load_fleet(SHIPPED, {}).router.listen.port == 8001


# ---------------------------------------------------------------- mistakes, in the words a person reads

MISUSES = {
    "no version": (
        "name: demo\npools: {main: {model_repository: models}}\n",
        "DIR/fleet.yaml:1:1: version: is missing\n   1 | name: demo\n     | ^\n  hint: add `version: 1`",
    ),
    "other version": (
        SMALLEST.replace("version: 1", "version: 2"),
        "DIR/fleet.yaml:1:10: version: must be 1, not 2\n   1 | version: 2\n     |          ^",
    ),
    "no pools": (
        "version: 1\nname: demo\n",
        "DIR/fleet.yaml:1:1: pools: is missing\n   1 | version: 1\n     | ^\n"
        "  hint: add `pools: {main: {model_repository: FOLDER}}`",
    ),
    "empty pools": (
        "version: 1\nname: demo\npools: {}\n",
        "DIR/fleet.yaml:3:8: pools: must not be empty\n   3 | pools: {}\n     |        ^",
    ),
    "empty pool": (
        "version: 1\nname: demo\npools:\n  main:\n",
        "DIR/fleet.yaml:4:8: pools.main: must be a mapping (key: value), not empty\n   4 |   main:\n"
        "     |        ^",
    ),
    "no repository": (
        "version: 1\nname: demo\npools:\n  main: {models: [echo]}\n",
        "DIR/fleet.yaml:4:3: pools.main.model_repository: is missing\n   4 |   main: {models: [echo]}\n"
        "     |   ^\n  hint: add the folder that holds the pool's models",
    ),
    "repository that is not there": (
        SMALLEST.replace("models}", "modells}"),
        "DIR/fleet.yaml:3:34: pools.main.model_repository: DIR/modells does not exist\n"
        "   3 | pools: {main: {model_repository: modells}}\n     |                                  ^\n"
        "  hint: a model repository has one folder per model",
    ),
    "repository that is a file": (
        SMALLEST.replace("models}", "fleet.yaml}"),
        "DIR/fleet.yaml:3:34: pools.main.model_repository: DIR/fleet.yaml is not a folder\n"
        "   3 | pools: {main: {model_repository: fleet.yaml}}\n     |                                  ^\n"
        "  hint: a model repository has one folder per model",
    ),
    "repository without models": (
        SMALLEST.replace("models}", "models/echo}"),
        "DIR/fleet.yaml:3:34: pools.main.model_repository: DIR/models/echo holds no model\n"
        "   3 | pools: {main: {model_repository: models/echo}}\n     |                                  ^\n"
        "  hint: put one folder per model there",
    ),
    "repository in a cloud": (
        SMALLEST.replace("models}", "'s3://bucket/models'}"),
        "DIR/fleet.yaml:3:34: pools.main.model_repository: s3://bucket/models is not a folder of this host\n"
        "   3 | pools: {main: {model_repository: 's3://bucket/models'}}\n"
        "     |                                  ^\n  hint: copy the models to a folder",
    ),
    "empty repository": (
        SMALLEST.replace("models}", "''}"),
        "DIR/fleet.yaml:3:34: pools.main.model_repository: must not be empty\n"
        "   3 | pools: {main: {model_repository: ''}}\n     |                                  ^",
    ),
    "model that is not there": (
        POOL + "    models: [echo, digit]\n",
        "DIR/fleet.yaml:6:20: pools.main.models[1]: no model 'digit' in DIR/models\n"
        "   6 |     models: [echo, digit]\n     |                    ^\n  hint: did you mean 'digits'?",
    ),
    "model like no other": (
        POOL + "    models: [resnet50]\n",
        "DIR/fleet.yaml:6:14: pools.main.models[0]: no model 'resnet50' in DIR/models\n"
        "   6 |     models: [resnet50]\n     |              ^\n  hint: there are: digits, echo",
    ),
    "all models and one": (
        POOL + '    models: ["*", echo]\n',
        'DIR/fleet.yaml:6:13: pools.main.models: "*" means all models: nothing can stand beside it\n'
        '   6 |     models: ["*", echo]\n     |             ^',
    ),
    "models as a word": (
        POOL + "    models: echo\n",
        "DIR/fleet.yaml:6:13: pools.main.models: must be a list, not 'echo'\n"
        "   6 |     models: echo\n     |             ^\n  hint: write [echo]",
    ),
    "misspelt key": (
        POOL + "    drain_timout: 5s\n",
        "DIR/fleet.yaml:6:5: pools.main.drain_timout: unknown key\n"
        "   6 |     drain_timout: 5s\n     |     ^\n  hint: did you mean 'drain_timeout'?",
    ),
    "key one level too deep": (
        POOL + "    triton:\n      drain_timeout: 5s\n",
        "DIR/fleet.yaml:7:7: pools.main.triton.drain_timeout: unknown key\n"
        "   7 |       drain_timeout: 5s\n     |       ^\n"
        "  hint: belongs one level up, at pools.main.drain_timeout",
    ),
    "key one level too high": (
        POOL + "    min: 1\n",
        "DIR/fleet.yaml:6:5: pools.main.min: unknown key\n   6 |     min: 1\n     |     ^\n"
        "  hint: belongs one level down, at pools.main.replicas.min",
    ),
    "key in another part": (
        POOL + "    health: {max_backoff: 5s}\n",
        "DIR/fleet.yaml:6:14: pools.main.health.max_backoff: unknown key\n"
        "   6 |     health: {max_backoff: 5s}\n     |              ^\n"
        "  hint: belongs at pools.main.restart.max_backoff",
    ),
    "key like no other": (
        POOL + "    health: {colour: red}\n",
        "DIR/fleet.yaml:6:14: pools.main.health.colour: unknown key\n"
        "   6 |     health: {colour: red}\n     |              ^\n"
        "  hint: known here: interval, timeout, failures",
    ),
    "fleet name": (
        SMALLEST.replace("demo", "My_Fleet"),
        "DIR/fleet.yaml:2:7: name: 'My_Fleet' is not a name: lowercase letters, digits and dashes, at most "
        "31, beginning with a letter\n   2 | name: My_Fleet\n     |       ^",
    ),
    "fleet name that YAML takes for something else": (
        SMALLEST.replace("demo", "on"),
        "DIR/fleet.yaml:2:7: name: must be text, not true\n   2 | name: on\n     |       ^\n"
        '  hint: quote it: "on"',
    ),
    "pool name": (
        SMALLEST.replace("main", "GPU"),
        "DIR/fleet.yaml:3:9: pools.GPU: 'GPU' is not a name: lowercase letters, digits and dashes, at most "
        "31, beginning with a letter\n   3 | pools: {GPU: {model_repository: models}}\n     |         ^",
    ),
    "listen without a port": (
        SMALLEST + "router: {listen: localhost}\n",
        "DIR/fleet.yaml:4:18: router.listen: 'localhost' is not HOST:PORT; write it as 127.0.0.1:8001\n"
        "   4 | router: {listen: localhost}\n     |                  ^",
    ),
    "listen as a number": (
        SMALLEST + "router: {listen: 8001}\n",
        "DIR/fleet.yaml:4:18: router.listen: 8001 is not HOST:PORT; write it as 127.0.0.1:8001\n"
        "   4 | router: {listen: 8001}\n     |                  ^",
    ),
    "listen beyond the ports": (
        SMALLEST + "router: {listen: 'localhost:80010'}\n",
        "DIR/fleet.yaml:4:18: router.listen: 'localhost:80010' is not HOST:PORT; write it as 127.0.0.1:8001\n"
        "   4 | router: {listen: 'localhost:80010'}\n     |                  ^",
    ),
    "listen on a star": (
        SMALLEST + "router: {listen: '*:8001'}\n",
        "DIR/fleet.yaml:4:18: router.listen: '*:8001' has no host; 0.0.0.0:8001 listens on every interface\n"
        "   4 | router: {listen: '*:8001'}\n     |                  ^",
    ),
    "policy": (
        SMALLEST + "router: {policy: least_request}\n",
        "DIR/fleet.yaml:4:18: router.policy: 'least_request' is none of 'round_robin', "
        "'least_requests' or 'least_work'\n"
        "   4 | router: {policy: least_request}\n     |                  ^\n"
        "  hint: did you mean 'least_requests'?",
    ),
    "too many workers": (
        SMALLEST + "router: {workers: 65}\n",
        "DIR/fleet.yaml:4:19: router.workers: must be at most 64, not 65\n"
        "   4 | router: {workers: 65}\n     |                   ^",
    ),
    "workers that are no number": (
        SMALLEST + "router: {workers: many}\n",
        "DIR/fleet.yaml:4:19: router.workers: must be a whole number, not 'many'\n"
        "   4 | router: {workers: many}\n     |                   ^",
    ),
    "duration": (
        SMALLEST + "router: {drain_timeout: 30 sec}\n",
        "DIR/fleet.yaml:4:25: router.drain_timeout: '30 sec' is not a duration; write it as 250ms, 30s, 5m "
        "or 1h\n   4 | router: {drain_timeout: 30 sec}\n     |                         ^",
    ),
    "no time at all": (
        SMALLEST + "router: {drain_timeout: 0s}\n",
        "DIR/fleet.yaml:4:25: router.drain_timeout: must be longer than 0\n"
        "   4 | router: {drain_timeout: 0s}\n     |                         ^",
    ),
    "size": (
        SMALLEST + "logs: {max_size: big}\n",
        "DIR/fleet.yaml:4:18: logs.max_size: 'big' is not a size; write it as 64m or 1g\n"
        "   4 | logs: {max_size: big}\n     |                  ^",
    ),
    "devices": (
        SMALLEST + "devices: all\n",
        "DIR/fleet.yaml:4:10: devices: 'all' is none of: auto, a list of GPU indices or UUIDs, {cpu: N} with "
        "N from 1\n   4 | devices: all\n     |          ^",
    ),
    "device twice": (
        POOL + "    replicas: {max: 2}\ndevices: [0, 0]\n",
        "DIR/fleet.yaml:7:10: devices: a device is listed twice\n   7 | devices: [0, 0]\n     |          ^",
    ),
    "more than the devices hold": (
        POOL + "    replicas: {max: 5, per_device: 2}\ndevices: {cpu: 2}\n",
        "DIR/fleet.yaml:6:21: pools.main.replicas.max: 5 is too many: 4 fit on 2 devices with 2 on each\n"
        "   6 |     replicas: {max: 5, per_device: 2}\n     |                     ^\n"
        "  hint: write `max: 4`, or add devices",
    ),
    "groups beyond the devices": (
        POOL + "    replicas: {max: 2, devices_per_replica: 2}\ndevices: {cpu: 3}\n",
        "DIR/fleet.yaml:6:21: pools.main.replicas.max: 2 is too many: 1 fits on 3 devices with 2 devices for "
        "each\n   6 |     replicas: {max: 2, devices_per_replica: 2}\n     |                     ^\n"
        "  hint: write `max: 1`, or add devices",
    ),
    "a group of more than all devices": (
        POOL + "    replicas: {devices_per_replica: 2}\ndevices: [0]\n",
        "DIR/fleet.yaml:6:37: pools.main.replicas.devices_per_replica: 2 is too many: the file has 1 device\n"
        "   6 |     replicas: {devices_per_replica: 2}\n     |                                     ^\n"
        "  hint: list more devices",
    ),
    "a group of MIG slices": (
        POOL + "    replicas: {devices_per_replica: 2}\ndevices: [MIG-a, MIG-b]\n",
        "DIR/fleet.yaml:6:37: pools.main.replicas.devices_per_replica: MIG-a is a MIG slice, and a process "
        "can use one only\n   6 |     replicas: {devices_per_replica: 2}\n     |"
        "                                     ^\n  hint: list whole GPUs, or leave this key out",
    ),
    "a group that shares": (
        POOL + "    replicas: {per_device: 2, devices_per_replica: 2}\n",
        "DIR/fleet.yaml:6:15: pools.main.replicas: devices_per_replica and per_device cannot both be more "
        "than 1; leave one out\n   6 |     replicas: {per_device: 2, devices_per_replica: 2}\n     |"
        "               ^",
    ),
    "min beyond the devices": (
        POOL + "    replicas: {min: 3}\ndevices: [0]\n",
        "DIR/fleet.yaml:6:21: pools.main.replicas.min: 3 is too many: 1 fits on 1 device with 1 on each\n"
        "   6 |     replicas: {min: 3}\n     |                     ^\n  hint: write `min: 1`, or add devices",
    ),
    "initial beyond the devices": (
        POOL + "    replicas: {initial: 3, min: 2}\ndevices: {cpu: 2}\n",
        "DIR/fleet.yaml:6:25: pools.main.replicas.initial: 3 is too many: 2 fit on 2 devices with 1 on each\n"
        "   6 |     replicas: {initial: 3, min: 2}\n     |                         ^\n"
        "  hint: write `initial: 2`, or add devices",
    ),
    "device that is none": (
        SMALLEST + "devices: [0, -1, true]\n",
        "DIR/fleet.yaml:4:10: devices: [0, -1, true] is none of: auto, a list of GPU indices or UUIDs, "
        "{cpu: N} with N from 1\n   4 | devices: [0, -1, true]\n     |          ^",
    ),
    "no devices": (
        SMALLEST + "devices: []\n",
        "DIR/fleet.yaml:4:10: devices: [] is none of: auto, a list of GPU indices or UUIDs, "
        "{cpu: N} with N from 1\n   4 | devices: []\n     |          ^",
    ),
    "slots by another name": (
        SMALLEST + "devices: {cpus: 4}\n",
        "DIR/fleet.yaml:4:10: devices: {cpus: 4} is none of: auto, a list of GPU indices or UUIDs, "
        "{cpu: N} with N from 1\n   4 | devices: {cpus: 4}\n     |          ^",
    ),
    "variable in a list that is not set": (
        SMALLEST + "devices: ['${FIRST}', 1]\n",
        "DIR/fleet.yaml:4:11: devices[0]: $FIRST is not set\n   4 | devices: ['${FIRST}', 1]\n"
        "     |           ^\n  hint: set it, or give a default: ${FIRST:-value}",
    ),
    "models of the wrong type": (
        POOL + "    models: [1]\n",
        "DIR/fleet.yaml:6:14: pools.main.models[0]: must be text, not 1\n"
        '   6 |     models: [1]\n     |              ^\n  hint: quote it: "1"',
    ),
    "model twice": (
        POOL + "    models: [echo, digits, echo]\n",
        "DIR/fleet.yaml:6:28: pools.main.models[2]: echo is listed twice\n"
        "   6 |     models: [echo, digits, echo]\n     |                            ^",
    ),
    "listen on IPv6 without brackets": (
        SMALLEST + "router: {listen: '::1:8001'}\n",
        "DIR/fleet.yaml:4:18: router.listen: '::1:8001' needs brackets around an IPv6 address: [::1]:8001\n"
        "   4 | router: {listen: '::1:8001'}\n     |                  ^",
    ),
    "a date": (
        SMALLEST + "router: {drain_timeout: 2030-01-02}\n",
        "DIR/fleet.yaml:4:25: router.drain_timeout: 2030-01-02 is not a duration; write it as 250ms, 30s, 5m "
        "or 1h\n   4 | router: {drain_timeout: 2030-01-02}\n     |                         ^",
    ),
    "pools that do not fit together": (
        "version: 1\nname: demo\ndevices: {cpu: 2}\npools:\n"
        "  one: {model_repository: models, replicas: {min: 2, max: 2}}\n"
        "  two: {model_repository: models, replicas: {max: 2}}\n",
        "DIR/fleet.yaml:5:3: pools: the pools start with more replicas than fit on 2 devices\n"
        "   5 |   one: {model_repository: models, replicas: {min: 2, max: 2}}\n     |   ^\n"
        "  hint: lower their initial sizes, or add devices",
    ),
    "min above max": (
        POOL + "    replicas: {min: 3, max: 2}\n",
        "DIR/fleet.yaml:6:15: pools.main.replicas: min 3 is more than max 2\n"
        "   6 |     replicas: {min: 3, max: 2}\n     |               ^",
    ),
    "initial outside": (
        POOL + "    replicas: {min: 1, initial: 9}\n",
        "DIR/fleet.yaml:6:15: pools.main.replicas: initial 9 is not between min 1 and max 4\n"
        "   6 |     replicas: {min: 1, initial: 9}\n     |               ^",
    ),
    "argument that the fleet owns": (
        POOL + "    triton: {args: [--log-verbose=1, --grpc-port=9000]}\n",
        "DIR/fleet.yaml:6:38: pools.main.triton.args[1]: --grpc-port is set by the fleet: the fleet gives "
        "every replica its own ports\n   6 |     triton: {args: [--log-verbose=1, --grpc-port=9000]}\n"
        "     |                                      ^",
    ),
    "argument as two words": (
        POOL + "    triton: {args: [--load-model, echo]}\n",
        "DIR/fleet.yaml:6:21: pools.main.triton.args[0]: --load-model is set by the fleet: use models\n"
        "   6 |     triton: {args: [--load-model, echo]}\n     |                     ^",
    ),
    "pinning by hand": (
        POOL + "    triton:\n      env:\n        CUDA_VISIBLE_DEVICES: '1'\n",
        "DIR/fleet.yaml:8:9: pools.main.triton.env: CUDA_VISIBLE_DEVICES is set by the fleet: use devices\n"
        "   8 |         CUDA_VISIBLE_DEVICES: '1'\n     |         ^",
    ),
    "variable with a number": (
        POOL + "    triton: {env: {OMP_NUM_THREADS: 1}}\n",
        "DIR/fleet.yaml:6:37: pools.main.triton.env.OMP_NUM_THREADS: must be text, not 1\n"
        "   6 |     triton: {env: {OMP_NUM_THREADS: 1}}\n     |                                     ^\n"
        '  hint: quote it: "1"',
    ),
    "variable that is no name": (
        POOL + "    triton: {env: {A=B: x}}\n",
        "DIR/fleet.yaml:6:20: pools.main.triton.env.A=B: 'A=B' is not the name of an environment variable: "
        "letters, digits and _\n   6 |     triton: {env: {A=B: x}}\n     |                    ^",
    ),
    "backoff": (
        POOL + "    restart: {backoff: 2m}\n",
        "DIR/fleet.yaml:6:24: pools.main.restart.backoff: longer than max_backoff, which is 60 s\n"
        "   6 |     restart: {backoff: 2m}\n     |                        ^",
    ),
    "a part that is a word": (
        SMALLEST + "router: 127.0.0.1:8001\n",
        "DIR/fleet.yaml:4:9: router: must be a mapping (key: value), not '127.0.0.1:8001'\n"
        "   4 | router: 127.0.0.1:8001\n     |         ^",
    ),
    "nothing": (
        "",
        "DIR/fleet.yaml:1:1: the file is empty\n"
        "  hint: the smallest is {version: 1, name: demo, pools: {main: {model_repository: FOLDER}}}",
    ),
    "a list": (
        "- version: 1\n",
        "DIR/fleet.yaml:1:1: a fleet file is a mapping (key: value)\n   1 | - version: 1\n     | ^\n"
        "  hint: the smallest is {version: 1, name: demo, pools: {main: {model_repository: FOLDER}}}",
    ),
}


@pytest.mark.parametrize(("text", "expected"), MISUSES.values(), ids=MISUSES.keys())
def test_misuse(folder: Folder, text: str, expected: str) -> None:
    assert folder.says(text) == expected


def test_all_mistakes_of_a_file_at_once_in_its_order(folder: Folder) -> None:
    error = folder.error("""\
version: 1
name: Demo
router: {listen: "${HOST}:8001", workers: 0}
pools:
  main:
    model_repository: nowhere
    drain_timeout: soon
    replica: {max: 2}
    triton: {args: [--http-port=1]}
""")
    assert [(p.line, p.path) for p in error.problems] == [
        (2, "name"),
        (3, "router.listen"),
        (3, "router.workers"),
        (6, "pools.main.model_repository"),
        (7, "pools.main.drain_timeout"),
        (8, "pools.main.replica"),
        (9, "pools.main.triton.args[0]"),
    ]
    assert str(error).count("fleet.yaml:") == 7


@pytest.mark.parametrize("written", ["true", "1.5", "yes"])
def test_a_count_is_a_number_and_nothing_else(folder: Folder, written: str) -> None:
    (problem,) = folder.error(SMALLEST + f"router: {{workers: {written}}}\n").problems
    assert problem.message.startswith("must be a whole number, not ")
    (problem,) = folder.error(SMALLEST.replace("version: 1", f"version: {written}")).problems
    assert problem.message.startswith("must be 1, not ")


def test_a_file_that_is_not_there_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_fleet(tmp_path / "none.yaml", {})
    assert str(caught.value).replace(str(tmp_path), "DIR") == (
        "DIR/none.yaml: there is no such file\n  hint: name another with -f, or write one; the smallest is "
        "{version: 1, name: demo, pools: {main: {model_repository: FOLDER}}}"
    )


def test_the_smallest_file_of_the_hint_is_one(folder: Folder) -> None:
    from tritonfleet.config.load import SMALLEST as HINTED

    assert folder.load(HINTED.replace("FOLDER", "models") + "\n") == folder.load(SMALLEST)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_fleet(tmp_path, {})
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text: byte 9 is 0xe9"):
        load_fleet(tmp_path / "latin.yaml", {})


def test_certificates_are_looked_for_beside_the_file(folder: Folder) -> None:
    tls = SMALLEST + "router: {tls: {cert: a.pem, key: a.key}}\n"
    text = folder.says(tls)
    assert "DIR/a.pem does not exist" in text
    assert "DIR/a.key does not exist" in text
    certificate(folder.path, "a")
    spec = folder.load(tls)
    assert spec.router.tls is not None
    assert spec.router.tls.cert == str(folder.path / "a.pem")


def test_certificates_and_keys_must_fit(folder: Folder) -> None:
    """Or the router's workers would end as soon as they are started, and replicas call their port taken."""
    for name in ("a", "b"):
        certificate(folder.path, name)
    (folder.path / "text.pem").write_text("nothing")
    router = SMALLEST + "router:\n  tls: {cert: %s, key: %s, client_ca: %s}\n"
    said = folder.says(router % ("a.pem", "b.key", "b.key"))
    assert "fleet.yaml:5:27: router.tls.key: DIR/b.key with DIR/a.pem: the key is not that of the" in said
    assert "router.tls.client_ca: DIR/b.key: no certificate is in it" in said
    assert "with DIR/text.pem: not a PEM file" in folder.says(router % ("text.pem", "a.key", "a.pem"))
    assert folder.load(router % ("a.pem", "a.key", "b.pem")).router.tls is not None
    triton = "    triton: {tls: {cert: a.pem, key: a.key, ca: a.pem, client_cert: b.pem, client_key: %s}}\n"
    said = folder.says(POOL + triton % "a.key")
    assert "pools.main.triton.tls.client_key: DIR/a.key with DIR/b.pem: the key is not that" in said


def test_a_key_with_a_pass_phrase(folder: Folder) -> None:
    _, key = certificate(folder.path, "a")
    subprocess.run(
        ["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:x", "-out", folder.path / "locked.key"],
        check=True,
        capture_output=True,
    )
    tls = SMALLEST + "router: {tls: {cert: a.pem, key: locked.key}}\n"
    assert "DIR/locked.key with DIR/a.pem: the key has a pass phrase" in folder.says(tls)


def test_a_size_out_of_bounds_is_told_as_sizes_are_written(folder: Folder) -> None:
    said = folder.says(SMALLEST + "router: {limits: {metadata: 100k, held_by_all: 1, streams: 0}}\n")
    assert "router.limits.metadata: must be at most 16k, not '100k'" in said
    assert "router.limits.held_by_all: must be at least 1m, not 1" in said
    assert "router.limits.streams: must be at least 1, not 0" in said


def test_one_client_cannot_be_allowed_more_than_all_together(folder: Folder) -> None:
    limits = SMALLEST + "router: {limits: {%s}}\n"
    said = folder.says(limits % "held_by_connection: 1g, held_by_all: 1m")
    assert "limits.held_by_connection: 1g is more than all clients together may: held_by_all is 1m" in said
    said = folder.says(limits % "kept_by_all: 8m")
    assert "router.limits.kept_by_all: 8m is less than kept_by_connection, which is 16m" in said
    assert (
        folder.load(limits % "held_by_connection: 1g, held_by_all: 2g").router.limits.held_by_all == 2 << 30
    )


def test_the_limits_of_the_file_are_those_of_the_router() -> None:
    assert LimitsSpec().figures() == RouterLimits()
    given = LimitsSpec.model_validate({"streams": 7, "metadata": "4k", "stalled_timeout": "2m"})
    assert given.figures() == RouterLimits(streams=7, metadata=4096, stalled_s=120.0)


def test_who_may_change_the_servers(folder: Folder) -> None:
    names = SMALLEST + "router: {management: [10.0.0.0/8, 'token:secret']}\n"
    assert "secret does not exist" in folder.says(names)
    (folder.path / "secret").write_text("word")
    assert folder.load(names).router.management == ("10.0.0.0/8", f"token:{folder.path}/secret")
    assert "router.tls.client_ca is not set" in folder.says(SMALLEST + "router: {management: ['cert:x']}\n")
    assert "or cert:NAME, or token:FILE" in folder.says(SMALLEST + "router: {management: [here]}\n")
    assert "is not token:FILE" in folder.says(SMALLEST + "router: {management: ['token:']}\n")


def test_the_access_log_s_folder_must_be_there(folder: Folder) -> None:
    log = SMALLEST + "router: {access_log: {path: %s}}\n"
    assert "there is no folder" in folder.says(log % "nowhere/access.jsonl")
    spec = folder.load(log % "access.jsonl")
    assert spec.router.access_log is not None
    assert spec.router.access_log.path == str(folder.path / "access.jsonl")
    stdout = folder.load(log % "stdout").router.access_log
    assert stdout is not None
    assert (stdout.path, stdout.sample) == ("stdout", 1.0)
    assert "sample" in folder.says(log % "stdout, sample: 0")


def test_traces_go_to_an_endpoint(folder: Folder) -> None:
    traces = SMALLEST + "router: {traces: {endpoint: %s}}\n"
    spec = folder.load(traces % "'http://127.0.0.1:4318'").router.traces
    assert spec is not None
    assert (spec.endpoint, spec.sample) == ("http://127.0.0.1:4318", 0.01)
    assert "'127.0.0.1:4318' is no endpoint; write http://HOST:4318" in folder.says(
        traces % "'127.0.0.1:4318'"
    )


def test_the_files_of_a_replica_s_tls(folder: Folder) -> None:
    def tls(given: str) -> str:
        return POOL + f"    triton: {{tls: {{{given}}}}}\n"

    assert "DIR/a.pem does not exist" in folder.says(tls("cert: a.pem, key: a.key, ca: ca.pem"))
    for name in ("a", "ca"):
        certificate(folder.path, name)
    half = folder.says(tls("cert: a.pem, key: a.key, ca: ca.pem, client_cert: a.pem"))
    assert "client_cert and client_key go together" in half
    found = folder.load(tls("cert: a.pem, key: a.key, ca: ca.pem")).pools["main"].triton.tls
    assert found is not None
    assert (found.cert, found.ca) == (str(folder.path / "a.pem"), str(folder.path / "ca.pem"))
    assert (found.name, found.client_cert) == ("localhost", None)
    assert "use triton.tls" in folder.says(POOL + "    triton: {args: ['--grpc-use-ssl=true']}\n")
