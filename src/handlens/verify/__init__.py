"""Is it the same model? The contract from slice grid to answer, stage by stage, between any two of them."""
