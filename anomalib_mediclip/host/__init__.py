# Copyright (C) 2026 The anomalib-mediclip authors
# SPDX-License-Identifier: Apache-2.0

"""Everything that this plugin changes in anomalib and Lightning; ``docs/host.md`` lists the changes."""
