"""Picture and prompt preparation shared by training, the torch model and the device; no framework."""
