"""The reference implementation in a process and an interpreter of its own: one JSON request a line in, one answer out.

Runs as a plain file, `PYTHON reference_driver.py FOLDER`, where FOLDER is a checkout of deepseek-ai/DeepSeek-VL2 and
PYTHON has what that needs (torch, transformers 4.38, timm, einops, attrdict). Imports nothing of ours, so that neither
side can lean on the other. `ReferenceProcess` in reference_process.py is its other end.
"""

import hashlib
import io
import json
import os
import sys
import time
import types
from typing import Any

import numpy as np
import PIL.Image
import torch


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the reference prints while it works
    sys.path.insert(0, sys.argv[1])
    driver = Driver()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(driver, request.pop("do"))(**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Driver:
    """Each public method is one kind of request."""

    def versions(self) -> dict[str, str]:
        import transformers

        return {"torch": torch.__version__, "transformers": transformers.__version__, "pillow": PIL.__version__}

    def load(self, *, checkpoint: str, num_threads: int, with_model: bool) -> dict[str, Any]:
        torch.set_num_threads(num_threads)
        make_importable()
        from deepseek_vl2.models import DeepseekVLV2ForCausalLM, DeepseekVLV2Processor

        self.processor = DeepseekVLV2Processor.from_pretrained(checkpoint)
        if with_model:
            model = DeepseekVLV2ForCausalLM.from_pretrained(checkpoint, torch_dtype=torch.float32)
            self.model = model.eval()
            self.clock = LanguageClock(self.model.language)
        return {"versions": self.versions()}

    def tile(self, *, images: list[str]) -> dict[str, Any]:
        """Opens, converts and processes the images one after another, keeping none."""
        start = time.perf_counter()
        for path in images:
            self._process(path, "")
        return {"elapsed_s": time.perf_counter() - start}

    def tile_hashes(self, *, images: list[str]) -> list[str]:
        return [_sha256_of_tiles(self._process(path, "").images) for path in images]

    def generate(self, *, images: list[str], text: str, num_tokens: int) -> dict[str, Any]:
        """One image after another, as the reference's inference.py does it, greedily and without an end."""
        parts = {"processor": 0.0, "vision": 0.0}  # seconds
        self.clock.reset()
        start = time.perf_counter()
        outputs = [self._answer(path, text, num_tokens, parts) for path in images]
        elapsed_s = time.perf_counter() - start
        parts["prefill"], parts["decode"] = self.clock.prefill_s, self.clock.decode_s
        return {"elapsed_s": elapsed_s, "parts": parts, "outputs": outputs}

    def logits(self, *, image: str, text: str, output: list[int]) -> list[float]:
        """Of the token that follows an output."""
        inputs = self.processor.batchify([self._process(image, text)])
        with torch.no_grad():
            embeds = self.model.prepare_inputs_embeds(**inputs)
            more = self.model.language.get_input_embeddings()(torch.tensor([output], dtype=torch.long))
            result = self.model.language(inputs_embeds=torch.cat([embeds, more], dim=1), use_cache=False)
        return result.logits[0, -1].tolist()

    def _answer(self, path: str, text: str, num_tokens: int, parts: dict[str, float]) -> list[int]:
        start = time.perf_counter()
        inputs = self.processor.batchify([self._process(path, text)])
        parts["processor"] += time.perf_counter() - start
        tokenizer = self.processor.tokenizer
        with torch.no_grad():
            start = time.perf_counter()
            embeds = self.model.prepare_inputs_embeds(**inputs)
            parts["vision"] += time.perf_counter() - start
            output = self.model.generate(
                inputs_embeds=embeds,
                input_ids=inputs.input_ids,
                images=inputs.images,
                images_seq_mask=inputs.images_seq_mask,
                images_spatial_crop=inputs.images_spatial_crop,
                attention_mask=inputs.attention_mask,
                past_key_values=None,
                pad_token_id=tokenizer.eos_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=None,
                max_new_tokens=num_tokens,
                do_sample=False,
                use_cache=True,
            )
        ids = output[0][inputs.input_ids.shape[1] :].tolist()
        tokenizer.decode(ids, skip_special_tokens=False)
        return ids

    def _process(self, path: str, text: str) -> Any:
        with open(path, "rb") as file:
            encoded = file.read()
        image = PIL.Image.open(io.BytesIO(encoded)).convert("RGB")
        conversation = [
            {"role": "<|User|>", "content": f"<image>\n{text}"},
            {"role": "<|Assistant|>", "content": ""},
        ]
        return self.processor.process_one(conversations=conversation, images=[image])


class LanguageClock:
    """Seconds inside the decoder: calls with many positions are prefill, with one decode."""

    def __init__(self, language: torch.nn.Module) -> None:
        self.reset()
        self._forward = language.forward
        language.forward = self._timed  # not a hook: the reference calls the method, not the module

    def reset(self) -> None:
        self.prefill_s = self.decode_s = 0.0

    def _timed(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        output = self._forward(*args, **kwargs)
        elapsed_s = time.perf_counter() - start
        if output.logits.shape[1] > 1:
            self.prefill_s += elapsed_s
        else:
            self.decode_s += elapsed_s
        return output


def make_importable() -> None:
    """Stands in for what the reference imports and a CPU does not have."""
    operations = types.ModuleType("xformers.ops")
    operations.memory_efficient_attention = _attention  # type: ignore[attr-defined]
    sys.modules["xformers"] = types.ModuleType("xformers")
    sys.modules["xformers.ops"] = operations
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # A torchvision built for CUDA beside a torch that is not: its operators are missing, and none is used here.
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        global _torchvision_operators
        _torchvision_operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _torchvision_operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, p: float = 0.0) -> torch.Tensor:
    """xformers' layout [B, N, H, D]; the fused kernel of torch, so that the stand-in is no handicap."""
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p).transpose(1, 2)


def _sha256_of_tiles(images: torch.Tensor) -> str:
    """Of the uint8 [N, S, S, 3] that normalisation started from."""
    levels = np.rint((images.permute(0, 2, 3, 1).numpy() * 0.5 + 0.5) * 255)
    return hashlib.sha256(np.ascontiguousarray(levels.astype(np.uint8)).tobytes()).hexdigest()


if __name__ == "__main__":
    main()
