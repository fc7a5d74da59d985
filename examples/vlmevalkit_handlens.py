"""Let VLMEvalKit evaluate Handlens over HTTP: a model class in its own form.

Start ``handlens serve`` first. Then, where VLMEvalKit is installed:

    from vlmevalkit_handlens import Handlens
    from vlmeval.config import supported_VLM
    supported_VLM["handlens"] = Handlens

and run its ``run.py --model handlens --data MMStar``. The protocol has no beam search, so numbers are greedy.
"""

import base64
import json
import mimetypes
import urllib.request
from pathlib import Path


class Handlens:
    """What VLMEvalKit needs of a model: ``generate(message, dataset)``."""

    is_api = True
    INTERLEAVE = True

    def __init__(self, base: str = "http://127.0.0.1:8000/v1", model: str = "nano", max_tokens: int = 1024, **more):
        self.base, self.model, self.max_tokens = base, model, max_tokens

    def set_dump_image(self, dump_image) -> None:
        """VLMEvalKit hands over what writes pictures of a dataset; files are read here instead."""
        self.dump_image_func = dump_image

    def use_custom_prompt(self, dataset) -> bool:
        """VLMEvalKit's own prompts are used."""
        return False

    def generate(self, message, dataset=None) -> str:
        """Return the answer to pictures and texts in order."""
        if isinstance(message, str):
            message = [{"type": "text", "value": message}]
        body = {
            "model": self.model, "temperature": 0, "max_tokens": self.max_tokens,
            "messages": [{"role": "user", "content": [part(one) for one in message]}],
        }  # fmt: skip
        asked = urllib.request.Request(
            self.base + "/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=600) as reply:
            return json.load(reply)["choices"][0]["message"]["content"] or ""


def part(one: dict) -> dict:
    """Return one part of a message in the protocol's form."""
    if one["type"] == "text":
        return {"type": "text", "text": one["value"]}
    data = base64.b64encode(Path(one["value"]).read_bytes()).decode()
    kind = mimetypes.guess_type(one["value"])[0] or "image/jpeg"
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
