# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Configurations of the benchmark: the shipped ones, and wrong ones."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from anomalib_mediclip.benchmark.checks import find_problems
from anomalib_mediclip.benchmark.configuration import make_configuration, read_configuration
from anomalib_mediclip.benchmark.factory import find_model_class
from anomalib_mediclip.benchmark.pipeline import FewShotBenchmark
from tests.conftest import REPOSITORY

SHIPPED = sorted((REPOSITORY / "configs" / "benchmark").glob("*.yaml"))
COMPARISONS = [path for path in SHIPPED if path.stem in {"lite", "smoke", "table1", "table2"}]
RIGHT = {
    "accelerator": "cpu",
    "few_shot_benchmark": {
        "seeds": [0],
        "k_shot": [4],
        "data": {"mine": {"class_path": "MedicalFolder", "init_args": {"root": "mine"}}},
        "models": {"MediCLIP": {"class_path": "MediCLIP"}},
    },
}


def write(path: Path, **changes) -> Path:
    content = {**RIGHT, **{key: value for key, value in changes.items() if key == "accelerator"}}
    section = {**RIGHT["few_shot_benchmark"], **{key: value for key, value in changes.items() if key != "accelerator"}}
    content["few_shot_benchmark"] = {key: value for key, value in section.items() if value is not None}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_are_read_with_the_files_they_name(path: Path) -> None:
    configuration = read_configuration(path)
    for model in configuration.models.values():
        assert model["class_path"].startswith("anomalib")
    assert configuration.output == Path("results/few_shot_benchmark") / path.stem
    assert not [problem for problem in find_problems(configuration) if problem.startswith("models.")]


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_comparisons_have_the_models_of_the_paper(path: Path) -> None:
    configuration = read_configuration(path)
    trained = [name for name in configuration.models if not name.endswith(" untrained")]
    columns = ["PatchCore", "SimpleNet", "SQUID", "AnoDDPM", "CutPaste", "PatchSVDD", "RegAD", "MediCLIP"]
    assert trained == columns  # the paper's, in its order
    assert set(pd.read_csv(REPOSITORY / "docs" / "results" / "paper_table1.csv")["model"]) == set(columns)
    for data in configuration.data.values():
        assert data["init_args"]["root"].startswith("datasets/")


@pytest.mark.parametrize("path", [path for path in COMPARISONS if path.stem != "smoke"], ids=lambda path: path.stem)
def test_each_method_that_learns_by_itself_is_followed_by_its_control(path: Path) -> None:
    models = read_configuration(path).models
    names = list(models)
    for name in ("CutPaste", "PatchSVDD", "RegAD"):
        control = names[names.index(name) + 1]
        assert control == f"{name} untrained"
        built = []
        for key in (name, control):
            options = models[key]["init_args"]
            weights = {"weights": None} if "weights" in options else {}  # a hub may be out of reach
            built.append(find_model_class(models[key]["class_path"])(**options | weights))
        assert [model.trains for model in built] == [True, False]


def test_paper_configurations_are_the_papers() -> None:
    table1 = read_configuration(REPOSITORY / "configs" / "benchmark" / "table1.yaml")
    assert table1.k_shot == [4, 8, 16, 32]
    assert len(table1.seeds) == 3
    assert list(table1.data) == ["CheXpert", "BrainMRI", "BUSI"]
    assert table1.models["MediCLIP"]["class_path"] == "anomalib_mediclip.MediCLIP"
    assert table1.models["MediCLIP"]["init_args"]["encoder"] == "ViT-L-14-quickgelu"
    assert table1.models["PatchCore"]["init_args"]["backbone"].startswith("wide_resnet50_2")
    assert table1.models["SimpleNet"]["init_args"]["encoder"].startswith("timm/wide_resnet50_2")
    table2 = read_configuration(REPOSITORY / "configs" / "benchmark" / "table2.yaml")
    assert list(table2.data) == ["BUSI"]
    assert [path.name for path in table1.published + table2.published] == ["paper_table1.csv", "paper_table2.csv"]


def test_data_root_places_relative_roots_only(tmp_path: Path) -> None:
    absolute = {"class_path": "MedicalFolder", "init_args": {"root": str(tmp_path / "elsewhere")}}
    path = write(tmp_path / "a.yaml", data={**RIGHT["few_shot_benchmark"]["data"], "other": absolute})
    configuration = read_configuration(path, data_root=Path("/data"), output=tmp_path / "out")
    assert configuration.data["mine"]["init_args"]["root"] == "/data/mine"
    assert configuration.data["other"]["init_args"]["root"] == str(tmp_path / "elsewhere")
    assert configuration.output == tmp_path / "out"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": None}, ["few_shot_benchmark", "seeds"]),
        ({"modles": {"A": "a.yaml"}}, ["few_shot_benchmark", "modles"]),
        ({"k_shot": 4}, ["k_shot", "list"]),
        ({"data": {}}, ["data", "not empty"]),
        ({"models": {"A": {"init_args": {}}}}, ["'A'", "class_path"]),
        ({"models": {"A": {"class_path": "MediCLIP", "epochs": 3}}}, ["'A'", "trainer"]),
        ({"data": {"A": "BUSI"}}, ["'A'", "class_path"]),
        ({"seeds": [0, 0]}, ["seeds", "twice"]),
        ({"k_shot": ["four"]}, ["k_shot", "four"]),
        ({"k_shot": [True]}, ["k_shot", "bool"]),
        ({"k_shot": []}, ["k_shot", "not empty"]),
        ({"train_on": ["yours"]}, ["train_on names yours", "mine"]),
        ({"test_on": ["mine", "mine"]}, ["test_on", "twice"]),
        ({"models": {"A": {"class_path": "MediCLIP", "file": "a.yaml"}}}, ["'A'", "class_path or file"]),
        ({"models": {"mean brightness": {"class_path": "MediCLIP"}}}, ["mean brightness", "another name"]),
        ({"accelerator": "tpu"}, ["tpu", "'auto', 'cpu', 'cuda'"]),
    ],
)
def test_wrong_configurations_are_explained(tmp_path: Path, changes: dict, words: list[str]) -> None:
    path = write(tmp_path / "wrong.yaml", **changes)
    with pytest.raises(ValueError) as error:
        read_configuration(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for changes in ({"models": {"A": "no/such.yaml"}}, {"published": ["no/such.yaml"]}):
        with pytest.raises(FileNotFoundError, match=r"no/such\.yaml"):
            read_configuration(write(tmp_path / "a.yaml", **changes))


def test_broken_files_are_named_with_the_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("few_shot_benchmark:\n  seeds: [0]\n  k_shot: [4\n  data: {}\n")
    with pytest.raises(ValueError, match=r"(?s)broken\.yaml: .*line 4"):
        read_configuration(broken)
    with pytest.raises(ValueError, match=r"broken\.yaml, line 4: this is no YAML"):
        read_configuration(write(tmp_path / "a.yaml", models={"A": "broken.yaml"}))


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("data: {}")
    with pytest.raises(ValueError, match=r"model 'A' names data\.yaml, which has no section model"):
        read_configuration(write(tmp_path / "a.yaml", models={"A": "data.yaml"}))


def test_a_model_may_differ_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(
        "model: {class_path: MediCLIP, init_args: {layers: [3], adapter: linear}}\ntrainer: {max_epochs: 5}\n"
    )
    changed = {"file": "model.yaml", "init_args": {"adapter": "none"}}
    configuration = read_configuration(write(tmp_path / "a.yaml", models={"A": "model.yaml", "B": changed}))
    assert configuration.models["A"]["init_args"] == {"layers": [3], "adapter": "linear"}
    assert configuration.models["B"] == {
        "class_path": "MediCLIP", "init_args": {"layers": [3], "adapter": "none"}, "trainer": {"max_epochs": 5}
    }  # fmt: skip


def test_roots_of_data_sets_within_a_data_set_are_placed(tmp_path: Path) -> None:
    parts = {"one": {"class_path": "BUSI", "init_args": {"root": "busi"}}}
    path = write(tmp_path / "a.yaml", data={"both": {"class_path": "UnifiedData", "init_args": {"parts": parts}}})
    data = read_configuration(path, data_root=Path("/data")).data
    assert data["both"]["init_args"]["parts"]["one"]["init_args"]["root"] == "/data/busi"


def test_options_of_the_command_take_the_place_of_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", k_shot=[4, "all"])
    parser = FewShotBenchmark.get_parser()
    options = ["--few_shot_benchmark.seeds", "[7]", "--few_shot_benchmark.models", "{B: {class_path: MediCLIP}}"]
    configuration = make_configuration(parser.parse_args(["--config", str(path), *options]))
    assert configuration.seeds == [7]
    assert dict(configuration.models) == {"B": {"class_path": "MediCLIP"}}
    assert configuration.k_shot == [4, "all"]
    assert "init_args" in configuration.data["mine"]
    assert set(configuration.data["mine"]["init_args"]) == {"root"}  # not the defaults of the class
