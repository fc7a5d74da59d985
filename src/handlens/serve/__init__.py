"""The OpenAI-compatible server and its page; everything it needs beyond the base install is the extra ``serve``."""
