# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""What torch notes in an ONNX file about the code that each node comes from."""

from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_mediclip.atomic import write_whole

if TYPE_CHECKING:
    from onnx import GraphProto


def forget_origin(path: Path) -> None:
    """Remove the notes about the origin of each node from an ONNX file; weights in a second file stay as they are.

    They hold paths of the machine that exports, and are most of the file where the graph has a loop: every node of its
    body repeats the whole body.

    Args:
        path (Path): ONNX file, which is replaced.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    _clear(model.graph)
    for function in model.functions:
        function.ClearField("metadata_props")
        for node in function.node:
            node.ClearField("metadata_props")
    write_whole(path, model.SerializeToString())


def _clear(graph: "GraphProto") -> None:
    """Remove the notes from a graph and from those inside its nodes."""
    graph.ClearField("metadata_props")
    for part in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _clear(attribute.g)
