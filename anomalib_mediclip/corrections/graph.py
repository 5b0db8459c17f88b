# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""The image threshold within exported ONNX and OpenVINO graphs: found by what is computed with it, and replaced.

A graph of a model with a memory bank ends in sigmoid(score - threshold) > cut. The two constants are looked for at
these places only, and a graph that ends in any other way is refused: its threshold has been merged with other numbers.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from anomalib_mediclip.export.inference import require

SCORE, LABEL = "pred_score", "pred_label"
WEIGHTS = {".onnx": ".onnx.data", ".xml": ".bin"}  # file beside a graph, by the ending of the graph


class GraphThreshold(NamedTuple):
    """Image threshold of a graph.

    Attributes:
        value (float): Threshold, in raw scores.
        cut (float): Where shown scores are cut.
        write (Callable[[float, Path], None]): Writes the graph with another threshold to a file in an existing folder.
    """

    value: float
    cut: float
    write: Callable[[float, Path], None]


def find_threshold(path: Path) -> GraphThreshold:
    """Find the image threshold of an exported graph.

    Args:
        path (Path): ``.onnx`` or ``.xml`` file, with its weights beside it.

    Returns:
        GraphThreshold: The threshold.

    Raises:
        ModuleNotFoundError: If the package that reads such graphs is not installed.
        ValueError: If the file is no graph of this plugin, or its threshold cannot be told from other numbers.
    """
    find = _find_onnx if path.suffix == ".onnx" else _find_openvino
    try:
        return find(path)
    except (AttributeError, IndexError, KeyError, TypeError) as error:  # another node than was expected
        msg = (
            f"{path} does not end in sigmoid(score - threshold), as exports of MediCLIP with a memory bank do, so its "
            "threshold cannot be replaced. Set the threshold of the checkpoint, and export that again."
        )
        raise ValueError(msg) from error


def _find_onnx(path: Path) -> GraphThreshold:
    """Find the threshold of an ONNX graph: an initializer that only the subtraction before the sigmoid reads."""
    require("onnx", purpose="Changing the threshold of an ONNX export")
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import numpy_helper

    try:
        model = onnx.load(path)
    except (OSError, ValueError, DecodeError) as error:
        msg = f"{path} cannot be read as ONNX ({error}). Its weights, {path.name}.data, belong beside it."
        raise ValueError(msg) from error
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {constant.name: constant for constant in model.graph.initializer}
    difference = producers[_expected(producers[SCORE], "Sigmoid", "op_type").input[0]]
    threshold = constants[_expected(difference, "Sub", "op_type").input[1]]
    comparison = _expected(producers[LABEL], "Greater", "op_type")
    cut = constants[comparison.input[1]]
    readers = [node for node in model.graph.node if threshold.name in node.input]
    if comparison.input[0] != SCORE or len(readers) != 1:
        raise KeyError(threshold.name)

    def write(value: float, output: Path) -> None:
        number = numpy_helper.to_array(threshold)
        threshold.CopyFrom(numpy_helper.from_array((number * 0 + value).astype(number.dtype), threshold.name))
        beside = f"{output.name}.data" if path.with_suffix(WEIGHTS[".onnx"]).is_file() else None
        onnx.save_model(model, output, save_as_external_data=beside is not None, location=beside)

    return GraphThreshold(numpy_helper.to_array(threshold).item(), numpy_helper.to_array(cut).item(), write)


def _find_openvino(path: Path) -> GraphThreshold:
    """Find the threshold of an OpenVINO graph: the constant that is added before the sigmoid, with the other sign."""
    require("openvino", purpose="Changing the threshold of an OpenVINO export")
    import openvino

    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        msg = f"{path} cannot be read as OpenVINO. Its weights, {path.stem}.bin, belong beside it."
        raise ValueError(msg) from error
    outputs = {name: output.get_node().input_value(0).get_node() for output in model.outputs for name in output.names}
    score = _expected(outputs[SCORE], "Sigmoid", "get_type_name")
    difference = _expected(score.input_value(0).get_node(), "Add", "get_type_name")
    comparison = _expected(outputs[LABEL], "Greater", "get_type_name")
    negative, cut = _constant_before(difference), _constant_before(comparison)
    if comparison.input_value(0).get_node().get_friendly_name() != score.get_friendly_name():
        raise KeyError(LABEL)

    def write(value: float, output: Path) -> None:
        replaced = difference.input(1)
        shape, kind = replaced.get_shape(), replaced.get_element_type()
        replaced.replace_source_output(openvino.op.Constant(kind, shape, [-value]).output(0))
        openvino.save_model(model, output, compress_to_fp16=False)  # what is in half precision stays so

    return GraphThreshold(-negative, cut, write)


def _expected(node: Any, kind: str, named_by: str) -> Any:
    """Return a node if it is of a kind."""
    name = getattr(node, named_by)
    if (name() if callable(name) else name) != kind:
        raise KeyError(kind)
    return node


def _constant_before(node: Any) -> float:
    """Return the number that is the second input of an OpenVINO node; half precision is converted in a node between."""
    source = node.input_value(1).get_node()
    if source.get_type_name() == "Convert":
        source = source.input_value(0).get_node()
    return float(_expected(source, "Constant", "get_type_name").get_data().item())


def weights_of(path: Path) -> Path:
    """Return the file of the weights of a graph, which need not exist.

    Args:
        path (Path): ``.onnx`` or ``.xml`` file.

    Returns:
        Path: File beside it.
    """
    return path.with_suffix(WEIGHTS[path.suffix])


@contextmanager
def whole_graph(output: Path) -> Iterator[Path]:
    """Write a graph and its weights under another folder, and move both when they are complete, the graph last.

    Args:
        output (Path): Graph to write; its folder is made.

    Yields:
        Path: Where to write; a graph names its weights, so the name is the same.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix="unfinished.") as folder:
        graph = Path(folder) / output.name
        yield graph
        if weights_of(graph).is_file():
            weights_of(graph).chmod(graph.stat().st_mode)  # onnx makes them readable to their owner only
            os.replace(weights_of(graph), weights_of(output))  # noqa: PTH105  # replaces on every system
        os.replace(graph, output)  # noqa: PTH105
