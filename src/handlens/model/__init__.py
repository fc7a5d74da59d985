"""The model in torch: vision tower, resampler, language model, joined; needs the extra ``train``."""
