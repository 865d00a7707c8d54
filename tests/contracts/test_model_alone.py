"""`model/` works where Ray, pydantic, pyarrow and boto3 are not installed, as on a bare GPU machine."""

import subprocess
import sys

from tests.command import REPOSITORY

ANSWER_WITHOUT_THEM = """
import sys
for name in ("ray", "pydantic", "pyarrow", "boto3", "botocore", "transformers", "huggingface_hub", "yaml"):
    sys.modules[name] = None  # importing it raises ImportError
from PIL import Image
from model.engine import Engine, Request
with Engine.load("nano") as engine:
    content = "<image>\\nDescribe the image in detail."
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": ""}]
    (completion,) = engine.generate([Request(messages=messages, images=[Image.new("RGB", (9, 9))], max_new_tokens=3)])
print(completion.num_output_tokens)
"""

IMPORT_TILING = """
import sys
sys.modules["torch"] = None
import model.prompt, model.tiling, model.config
print("fine")
"""


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_engine_answers_without_the_packages_of_the_pipeline():
    assert run_python(ANSWER_WITHOUT_THEM) == "3"


def test_tiling_and_prompts_need_no_torch():
    assert run_python(IMPORT_TILING) == "fine"
