# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Temporary files, for what would fill memory."""

import tempfile
from collections.abc import Iterable
from typing import IO


def in_temporary_file(parts: Iterable[bytes], error_class: type[ValueError]) -> IO[bytes]:
    """Put bytes into a temporary file.

    Args:
        parts (Iterable[bytes]): Bytes, part by part.
        error_class (type[ValueError]): What to raise if there is no space.

    Returns:
        IO[bytes]: File at its beginning. The caller closes it, and then it is gone.

    Raises:
        ValueError: Of the given class, if the file cannot be written; what ``parts`` raises goes through.
    """
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
        try:
            file.writelines(parts)
            file.seek(0)
        except BaseException:
            file.close()
            raise
    except OSError as error:
        msg = (
            f"it cannot be put into the folder of temporary files ({error.strerror}): free space there, or name "
            "another folder in the environment variable TMPDIR"
        )
        raise error_class(msg) from error
    return file
