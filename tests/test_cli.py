"""The command line, as typed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dask
import distributed  # noqa: F401 (its defaults come first, else they would go with what is laid over them)
import numpy as np
import pytest
import tifffile
import yaml

from pipeline.config import RunConfig, load_config, make_config
from pipeline.engine.workers import WORKER_ENVIRONMENT, WORKER_SETTINGS
from pipeline.errors import ConfigError

BIN = Path(sys.executable).parent / "seamfree"
CONFIGS = Path(__file__).parents[1] / "configs"


def seamfree(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN, *arguments], capture_output=True, text=True, check=False, timeout=250)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (60, 70), dtype=np.uint8))
    return path


@pytest.fixture
def rgb(tmp_path: Path) -> Path:
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(path, np.zeros((60, 70, 3), dtype=np.uint8), photometric="rgb")
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "missing argument 'INPUT...'; see 'seamfree run --help'"),
        (["run", "{image}"], "missing option '-o' / '--output'; see 'seamfree run --help'"),
        (["run", "{image}", "-o", "{out}", "--tile", "abc"], "invalid value for '--tile'"),
        (["run", "{image}", "-o", "{out}", "--workers", "0"], "invalid value for '--workers'"),
        (["run", "{image}", "-o", "{out}", "--tiles", "3"], "no such option: --tiles"),
        (["run", "{image}", "-o", "{out}", "-m", "nothing", "--direct"], "there is no model 'nothing'"),
        (["run", "{image}", "-o", "{out}", "--scheduler", "nonsense"], "no Dask scheduler answers at 'nonsense'"),
        (["run", "{image}", "-o", "", "--direct"], "-o: an empty name; give a folder"),
        (["segment"], "no such command 'segment'; see 'seamfree --help'"),
        (["run", "missing.tif", "-o", "out"], "missing.tif: no such file or folder"),
        (["run", "{image}", "-o", "{out}", "--tile", "0"], "tile"),
        (["run", "{image}", "-o", "{out}", "--instances", "magic"], "magic"),
        (
            ["run", "{image}", "-o", "{out}", "-c", "{config}"],
            "tiles: there is no such setting; there are model, tile,",
        ),
        (["run", "{image}", "-o", "{out}", "--device", "cuda", "--direct"], "torch sees no GPU"),
        (["run", "{image}", "{image}/../b/../a.tif", "-o", "{out}", "--direct"], "would share the result a.ome.zarr"),
        (["inspect", "nothing"], "neither a model"),
    ],
)
def test_bad_usage_is_refused_with_exit_code_2_and_one_line(
    image: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("tiles: 3\n")
    (tmp_path / "b").mkdir()
    places = {
        "{image}/..": str(tmp_path),
        "{image}": str(image),
        "{out}": str(tmp_path / "out"),
        "{config}": str(config),
    }
    filled = []
    for argument in arguments:
        text = argument
        for mark, value in places.items():
            text = text.replace(mark, value)
        filled.append(text)
    run = seamfree(*filled)
    if "cuda" in arguments and run.returncode == 0:
        pytest.skip("there is a GPU")
    assert run.returncode == 2, run.stderr
    assert message in run.stderr
    assert run.stderr.startswith("seamfree: ")
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_any_argument_the_help_is_shown() -> None:
    run = seamfree()
    assert run.returncode == 2
    assert "Usage: seamfree [OPTIONS] COMMAND" in run.stdout
    assert run.stderr == ""


@pytest.mark.slow
def test_an_unknown_model_is_named(image: Path, tmp_path: Path) -> None:
    run = seamfree("run", image, "-o", tmp_path / "out", "-m", "no-such-model", "--direct")
    assert run.returncode != 0
    assert "there is no model 'no-such-model'" in run.stderr
    assert "nuclei-fluorescence" in run.stderr


@pytest.mark.slow
def test_an_image_of_too_many_channels_is_refused_before_work(rgb: Path, tmp_path: Path) -> None:
    run = seamfree("run", rgb, "-o", tmp_path / "out", "--direct", "--scheduler", "serial")
    assert run.returncode == 1
    entry = json.loads((tmp_path / "out" / "run-summary.json").read_text())["images"][0]
    assert "takes 1 channel(s) and the image has 3: 0 ('red'), 1 ('green'), 2 ('blue')" in entry["reason"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run-summary.json"]


def test_run_verify_and_damage(rgb: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = seamfree("run", rgb, "-o", out, "--direct", "--scheduler", "serial", "--channel", "green", "--tile", "32")
    assert run.returncode == 0, run.stderr
    result = out / "rgb.ome.zarr"
    assert seamfree("verify", result).returncode == 0
    chunk = next(path for path in (result / "0").rglob("*") if path.is_file() and path.name == "zarr.json")
    chunk.write_text(chunk.read_text() + " ")
    verified = seamfree("verify", result)
    assert verified.returncode == 1
    assert "FAILED checksum of 0: changed since it was written" in verified.stdout
    assert seamfree("verify", tmp_path).returncode == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are Unicode")
@pytest.mark.parametrize("way", [["--direct"], []], ids=["direct", "prefect"])
def test_a_name_that_is_not_utf8_stops_no_other_image(image: Path, tmp_path: Path, way: list[str]) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.tif")
    shutil.copy(image, odd)
    out = tmp_path / "out"
    run = subprocess.run(
        [BIN, "run", tmp_path, "-o", out, "--scheduler", "serial", *way],
        env={**os.environ, "PREFECT_HOME": str(tmp_path / "home")}, capture_output=True, check=False, timeout=250,
    )  # fmt: skip
    assert b"Traceback" not in run.stderr
    entries = {entry["input"]: entry for entry in json.loads((out / "run-summary.json").read_text())["images"]}
    assert set(entries) == {str(image), str(odd)}
    assert entries[str(image)]["status"] == "done"
    if way:
        assert run.returncode == 0
        assert seamfree("verify", entries[str(odd)]["result"]).returncode == 0
    else:
        assert run.returncode == 1
        assert "is not UTF-8 cannot be recorded; rename it, or use --direct" in entries[str(odd)]["reason"]


@pytest.mark.slow
def test_a_summary_that_cannot_be_written_says_so_in_one_line(image: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "run-summary.json").mkdir(parents=True)
    run = seamfree("run", image, "-o", tmp_path / "out", "--direct", "--scheduler", "serial")
    assert run.returncode == 1
    assert "run-summary.json: no file, and not made by seamfree; take it away" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_file_is_no_result(image: Path) -> None:
    run = seamfree("verify", image)
    assert run.returncode == 2
    assert run.stderr == f"seamfree: {image}: not a result of seamfree (no seamfree.json in it)\n"


def test_a_png_is_called_one_once_and_what_to_do_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    run = seamfree("inspect", path)
    assert run.returncode == 1
    assert run.stderr == f"seamfree: {path}: not a TIFF file but a PNG; convert it to TIFF or OME-Zarr\n"


def test_what_tifffile_logs_is_shown_with_debug_only(tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, np.zeros((64, 64), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:150])
    run = seamfree("inspect", path)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith(f"seamfree: {path}: ")


def test_an_unfinished_run_is_resumed_and_another_plans_is_not(image: Path, tmp_path: Path) -> None:
    from pipeline.engine.executor import SerialExecutor
    from pipeline.images.discover import InputImage
    from pipeline.planning import Intent
    from pipeline.run import prepare, run_image
    from pipeline.stages import run_stage

    intent = Intent(device="cpu", worker_memory=2**32)

    def plan(tile: int, out: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return prepare(make_config({"tile": tile}), InputImage(str(image), "a"), tmp_path / out, intent)

    serial = SerialExecutor()
    first = plan(32, "out")
    for stage in ("create", "read", "statistics", "segment"):
        run_stage(stage, first, serial)
    assert run_stage("create", first, serial) == {"resumed": True}
    changed = plan(16, "out")
    assert changed.digest != first.digest
    assert run_stage("create", changed, serial) == {"resumed": False}
    resumed = plan(32, "other")
    for stage in ("create", "read"):
        run_stage(stage, resumed, serial)
    assert run_image(resumed, serial).objects == run_image(plan(32, "third"), serial).objects


@pytest.mark.slow
def test_plan_and_inspect_compute_nothing(image: Path, tmp_path: Path) -> None:
    run = seamfree("plan", image, "--tile", "30", "--json")
    assert run.returncode == 0, run.stderr
    plan = json.loads(run.stdout)[0]["plan"]
    assert plan["core"] == [1, 1, 32, 32]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif"]
    model = json.loads(seamfree("inspect", "nuclei-fluorescence", "--json").stdout)
    assert model["local"] is True
    assert (model["margin"], model["halo"], model["stride"]) == ([92, 92], [0, 0], [16, 16])
    found = json.loads(seamfree("inspect", image, "--json").stdout)
    assert found["shape"] == [1, 1, 1, 60, 70]
    assert "nuclei-fluorescence" in seamfree("models").stdout


# That of Prefect's is deployed in tests/flows.
@pytest.mark.parametrize(
    "path", sorted(set(CONFIGS.glob("*.yaml")) - {CONFIGS / "prefect.yaml"}), ids=lambda path: path.name
)
def test_shipped_configurations_are_valid(path: Path) -> None:
    if path.name.startswith("train-"):
        from pipeline.training.train import TrainConfig

        TrainConfig.model_validate(load_config(path))
    elif path.name.startswith("dask-"):
        # Dask's own: what workers that a run starts have.
        held = dask.config.collect(paths=[str(path)], env={})
        assert dask.config.get("distributed.nanny.pre-spawn-environ", config=held) == WORKER_ENVIRONMENT
        assert {name: dask.config.get(name, config=held) for name in WORKER_SETTINGS} == WORKER_SETTINGS
    else:
        make_config(load_config(path), str(path))


def test_the_default_configuration_states_the_defaults() -> None:
    assert make_config(load_config(CONFIGS / "default.yaml")) == RunConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tile: -3", "tile: Input should be greater than or equal to 1, got -3"),
        ("precision: float8", "precision: Input should be 'auto'"),
        ("output: {probabilities: int8}", "output.probabilities: Input should be 'none'"),
        ("instances: {methode: none}", "instances.methode: there is no such setting; there are method, classes,"),
        ("channels: DAPI", "channels: a list is wanted, such as [DAPI], got 'DAPI'"),
        ("channels: {a: 1}", "channels: a list is wanted, got {'a': 1}"),
        (
            "instances: {method: components, largest: 9}",
            "instances: largest is for the method watershed, and the method is components; leave out one of them",
        ),
        ("instances: {largest: 0}", "instances.largest: Input should be greater than or equal to 1, got 0"),
        ("instances: watershed", "instances: a mapping of settings is wanted, got 'watershed'"),
        ("execution: {workers: 0}", "execution.workers: Input should be greater than or equal to 1, got 0"),
        ("execution: {cluster: {kinds: slurm}}", "execution.cluster.kinds: there is no such setting; there are kind,"),
        ("execution: {cluster: {options: {cores: 2}}}", "execution.cluster: options are those of another kind"),
        ("execution: {cluster: {kind: slurm}}", "execution: a cluster of the kind slurm needs a number of workers"),
        ("execution: {cluster: {kind: cuda}, scheduler: 'a:1'}", "execution: scheduler is a cluster that runs already"),
        (
            "execution: {workers: 2, scheduler: 'a:1'}",
            "execution: workers are those that a run starts, and scheduler has",
        ),
        (
            "execution: {workers: 2, scheduler: serial}",
            "execution: workers are those that a run starts, and scheduler uses",
        ),
        (
            "instances: {options: {server: 'https://me:geheim@host/a'}}",
            "instances.options: options are noted, and have an address with a password or token; take it from",
        ),
        ("precision_tolerance: '0.1'", "precision_tolerance: Input should be a valid number, got '0.1'"),
        ("skip_below: true", "skip_below: Input should be a valid number, got True"),
        ("skip_below: .nan", "skip_below: Input should be a finite number, got nan"),
        ("execution: {patience: yes}", "execution.patience: Input should be a valid number, got True"),
        ("channels: []", "channels: a list of 1 or more is wanted, got []"),
        ("instances: {classes: []}", "instances.classes: a list of 1 or more is wanted, got []"),
        ("instances: {classes: [a, b, a]}", "instances: classes names one twice: a, b, a"),
        ("rescale: off", "rescale: Input should be 'off' or 'auto', got False; write it in quotes"),
        ("output: {ome_zarr: 0.4}", "output.ome_zarr: Input should be '0.5' or '0.4', got 0.4; write it in quotes"),
        ("output: {in_place: true, probabilities: float16}", "output: in_place adds labels and tables to the image"),
        ("output: {in_place: true, image: copy}", "output: in_place adds labels and tables to the image itself, and"),
        ("output: {in_place: true, staging: a}", "output: in_place adds labels and tables to the image itself, and"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(yaml.safe_load(text), "my.yaml")
    assert f"my.yaml: {message}" in str(caught.value)


def test_of_very_many_wrong_settings_the_first_are_told_and_the_others_counted() -> None:
    with pytest.raises(ConfigError, match=r"wrong-0: there is no such setting.*; and \d+ more$") as told:
        make_config({f"wrong-{number}": 1 for number in range(100)})
    named = str(told.value).count("there is no such setting")
    assert str(told.value).endswith(f"; and {100 - named} more")
    assert len(str(told.value)) < 2000


@pytest.mark.parametrize("text", ["- 1", "a: [", "3"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\ntta: !!bool maybe", "line 2: 'maybe' is no bool"),
        ("model: !!timestamp foo", "line 1: 'foo' is no timestamp"),
        ("tile: !!int ''", "line 1: '' is no int"),
        ("skip_below: !!float ''", "line 1: '' is no float"),
        (f"series: -0x{'f' * 5000}", "line 1: a number of 20000 bits"),
    ],
)
def test_a_value_that_is_not_what_it_is_said_to_be_is_told_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"c\.yaml: .*{re.escape(message)}"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.slow
def test_very_many_keys_are_compared_at_once(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("".join(f"k{number}: 1\n" for number in range(60_000)) + "k7: 2\n")
    with pytest.raises(ConfigError, match=r"line 60001: 'k7' is there twice"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.slow
def test_without_anywhere_to_tell_it_the_work_is_done(image: Path, tmp_path: Path) -> None:
    command = f"exec {BIN} run {image} -o {tmp_path / 'out'} --direct --scheduler serial >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False, timeout=250).returncode == 0
    assert (tmp_path / "out" / "a.ome.zarr" / "seamfree.json").exists()


@pytest.mark.parametrize("debug", [False, True])
def test_what_nobody_had_thought_of_is_told_in_one_line(debug: bool, tmp_path: Path) -> None:
    program = (
        "import sys, pipeline.models.card as card, pipeline.cli as cli\n"
        "def fail(folder): raise ZeroDivisionError('first\\nsecond')\n"
        "card.read_card = fail\n"
        f"sys.argv = {['seamfree', *(['--debug'] if debug else []), 'models']!r}\n"
        "cli.main()\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 1
    told = "seamfree: unexpected ZeroDivisionError: first second; please report this, with the output of --debug\n"
    assert run.stderr == told or (debug and "Traceback" in run.stderr and "ZeroDivisionError: first" in run.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["inspect"], ["run", "-o", "out", "--direct"], ["plan"], ["verify"], ["export"]])
def test_a_name_that_is_too_long_for_any_file_is_told_in_one_line(command: list[str], tmp_path: Path) -> None:
    more = ["--geojson", "a.geojson"] if command == ["export"] else []
    run = subprocess.run(
        [BIN, *command, "n" * 5000, *more], capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path
    )
    assert run.returncode in (1, 2)
    assert "Traceback" not in run.stderr
    assert "unexpected" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1, run.stderr


@pytest.mark.slow
def test_a_model_whose_name_is_too_long_for_any_file_is_told_in_one_line(image: Path, tmp_path: Path) -> None:
    run = seamfree("run", image, "-o", tmp_path / "out", "--direct", "-m", "n" * 5000)
    assert run.returncode == 2
    assert run.stderr.startswith("seamfree: ")
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["tta", "trust_model_code", "allow_nonlocal", "fully_convolutional"])
@pytest.mark.parametrize("value", ["yes", "true", 1, 0, 1.0])
def test_yes_and_no_are_nothing_else(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name}: true or false is wanted"):
        make_config({name: value})
    assert getattr(make_config({name: True}), name) is True


@pytest.mark.parametrize("value", ["yes", 1])
@pytest.mark.parametrize(
    ("section", "name"), [("instances", "fill_holes"), ("output", "table"), ("output", "in_place")]
)
def test_yes_and_no_in_sections_are_nothing_else(section: str, name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.{name}: true or false is wanted"):
        make_config({section: {name: value}})


@pytest.mark.parametrize(
    ("name", "value"),
    [("minimum_size", 5), ("classes", ["nucleus"]), ("depth", 1.0), ("fill_holes", True), ("border", "drop")],
)
def test_what_has_no_effect_without_objects_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"instances: {name} is for objects, and the method none makes none"):
        make_config({"instances": {"method": "none", name: value}})
