# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Trained models that are corrected: read from one file, written to another one with a record of what was changed."""

from pathlib import Path
from typing import Any, NamedTuple

from anomalib_mediclip.export.artifact import load_artifact, model_class, read_artifact, write_artifact
from anomalib_mediclip.export.model_card import write_model_card
from anomalib_mediclip.host.checkpoint_io import WholeFileCheckpointIO, read_checkpoint
from anomalib_mediclip.io import hash_of_file
from anomalib_mediclip.models.components.checkpoint import trained_model
from anomalib_mediclip.models.components.training_record import CORRECTIONS, RECORD

ARTIFACT = ".json"
OUTDATED = ("test", "expected_false_alarms")  # parts of a record that hold for what it was written with only


class Trained(NamedTuple):
    """A trained model and the file it is in.

    Attributes:
        path (Path): Checkpoint, or JSON file of an artefact.
        content (dict[str, Any]): What the file holds.
        model (Any): The model, in evaluation mode, on the CPU.
        sha256 (str): SHA-256 of the file, 64 hexadecimal digits.
    """

    path: Path
    content: dict[str, Any]
    model: Any
    sha256: str

    @property
    def ancestors(self) -> set[str]:
        """SHA-256 of the files that this one was corrected from."""
        return {correction["of"] for correction in self.content.get(RECORD, {}).get(CORRECTIONS, [])}


def read_trained(path: Path) -> Trained:
    """Read a trained model.

    Args:
        path (Path): Checkpoint, or JSON file of an artefact beside its safetensors.

    Returns:
        Trained: The model.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is damaged, or of no model of this plugin.
    """
    if path.suffix == ARTIFACT:
        return Trained(path, read_artifact(path), load_artifact(path), hash_of_file(path))
    content = read_checkpoint(path)
    name = trained_model(content)
    if name is None:
        msg = f"{path} names no model: it was not written by anomalib-mediclip. Give a checkpoint of its models."
        raise ValueError(msg)
    loaded: Any = model_class(name, path)
    return Trained(path, content, loaded.load_from_checkpoint(path, map_location="cpu").eval(), hash_of_file(path))


def check_output(source: Path, output: Path) -> None:
    """Refuse to overwrite a file, or to give it an ending of another format.

    Args:
        source (Path): File of the model that is corrected.
        output (Path): File to write.

    Raises:
        FileNotFoundError: If the source does not exist.
        FileExistsError: If the output does.
        ValueError: If their endings differ.
    """
    if not source.is_file():
        msg = f"There is no file {source} (absolute: {source.absolute()}). Check --ckpt_path."
        raise FileNotFoundError(msg)
    tensors = output.with_suffix(".safetensors")
    existing = [file for file in (output, tensors) if file.exists() and (file == output or output.suffix == ARTIFACT)]
    if existing:
        msg = f"{existing[0]} exists, and no file is overwritten. Give --output another name."
        raise FileExistsError(msg)
    if source.suffix != output.suffix:
        msg = f"--output {output} must end in {source.suffix or 'nothing'}, as {source.name} does."
        raise ValueError(msg)


def write_corrected(trained: Trained, output: Path, state: dict[str, Any], correction: dict[str, Any]) -> None:
    """Write a corrected model to a new file.

    Args:
        trained (Trained): Model as it was read.
        output (Path): File to write; folders are made.
        state (dict[str, Any]): Tensors that take the place of those that the file holds.
        correction (dict[str, Any]): What was done, in plain data; the record of the training lists it.

    Raises:
        OSError: If it cannot be written.
    """
    record = {name: value for name, value in trained.content.get(RECORD, {}).items() if name not in OUTDATED}
    record[CORRECTIONS] = [*record.get(CORRECTIONS, []), {"of": trained.sha256, **correction}]
    state = {**trained.content["state_dict"], **state}
    record["weights"] = trained.model.hash_learnt(state)
    content = {**trained.content, "state_dict": state, RECORD: record}
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ARTIFACT:
        write_artifact(output, content)
        write_model_card(load_artifact(output), output, "safetensors")
    else:
        WholeFileCheckpointIO().save_checkpoint(content, output)
