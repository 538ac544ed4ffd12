"""The generated code beside enrolment.proto is what its compiler makes of it: make it anew with

python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. shared/enrolment.proto
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MADE = ("enrolment_pb2.py", "enrolment_pb2.pyi", "enrolment_pb2_grpc.py")


def test_the_generated_code_is_of_this_proto(tmp_path):
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    compiler = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", *outputs, "shared/enrolment.proto"]
    subprocess.run(compiler, cwd=ROOT, check=True, timeout=60)
    for name in MADE:
        made, kept = (folder / "shared" / name for folder in (tmp_path, ROOT))
        assert kept.read_text() == made.read_text(), f"shared/{name} is of another proto: see the top of this file"
