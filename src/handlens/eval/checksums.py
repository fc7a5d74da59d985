"""Checksums of the files that the community uses, as VLMEvalKit publishes them.

Boundary: facts only. A file with another checksum is still read; the result says that it is another one.
Source: ``DATASET_MD5`` of VLMEvalKit (ms-vlmeval 0.0.20).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

MD5 = {
    "MMBench_DEV_EN.tsv": "b6caf1133a01c6bb705cf753bb527ed8",
    "MMBench_TEST_EN.tsv": "6939fadb0ce626fefc0bdc9c64efc528",
    "MMBench_DEV_CN.tsv": "08b8fc3324a5ed74155350f57be69fbd",
    "MMBench_TEST_CN.tsv": "7e1239baf0ee4c8b513e19705a0f317e",
    "MMBench_DEV_EN_V11.tsv": "30c05be8f2f347a50be25aa067248184",
    "MMBench_TEST_EN_V11.tsv": "26f0f15381a21720255091d3e0316ce6",
    "MMBench_DEV_CN_V11.tsv": "593f9b5f6bea453d870a798b34ae4f37",
    "MMBench_TEST_CN_V11.tsv": "74bbe4556dac745613c7cbe5ad787050",
    "MMStar.tsv": "e1ecd2140806c1b1bbf54b43372efb9e",
    "MME.tsv": "b36b43c3f09801f5d368627fb92187c3",
    "MMMU_DEV_VAL.tsv": "585e8ad75e73f75dcad265dfd0417d64",
    "MathVista_MINI.tsv": "f199b98e178e5a2a20e7048f5dcb0464",
    "HallusionBench.tsv": "0c23ac0dc9ef46832d7a24504f2a0c7c",
    "AI2D_TEST.tsv": "0f593e0d1c7df9a3d69bf1f947e71975",
    "OCRBench.tsv": "e953d98a987cc6e26ef717b61260b778",
    "SEEDBench_IMG.tsv": "68017231464752261a2526d6ca3a10c0",
    "MMVet.tsv": "748aa6d4aa9d4de798306a63718455e3",
    "LLaVABench.tsv": "d382a093f749a697820d3dadd61c8428",
    "RealWorldQA.tsv": "4de008f55dc4fd008ca9e15321dc44b7",
    "TextVQA_VAL.tsv": "b233b31f551bbf4056f2f955da3a92cd",
    "DocVQA_VAL.tsv": "d5ee77e1926ff10690d469c56b73eabf",
    "POPE.tsv": "c12f5acb142f2ef1f85a26ba2fbe41d5",
    "AMBER.tsv": "970d94c0410916166e0a76ba75da7934",
}


def check_files(files: Sequence[Path]) -> tuple[str, bool | None]:
    """Return the md5 of the bytes of all files, in order, and whether a single file is the published one.

    None where no checksum of that name is known.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    known = MD5.get(files[0].name) if len(files) == 1 else None
    return digest.hexdigest(), None if known is None else known == digest.hexdigest()
