"""The same work; see ../config.pbtxt."""

import runpy
from pathlib import Path

source = Path(__file__).resolve().parents[2] / "sized_work" / "1" / "model.py"
TritonPythonModel = runpy.run_path(str(source))["TritonPythonModel"]
