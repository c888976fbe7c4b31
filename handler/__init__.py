"""The scorer: what goes into `scorer.mar`, and what builds it.

Reading order, which is also the way an event takes: `scorer_handler` (TorchServe's entry
point) -> `pipeline` -> `decoding` -> `scoring` -> `recording` -> `answering`.
`network`, `create_model` and `archive` build the artefacts in `model_store/`.
"""
