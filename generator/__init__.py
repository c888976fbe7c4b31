"""An open-loop load generator that can prove every median it caused.

`python -m generator run` sends a seeded workload to the scorer at a fixed rate, whatever the
answers do, and with `--verify` recomputes every user's median from what it sent and the scores it
got back.

The pure core knows no socket and no clock: `pacing` (when is request i due), `workload` (what is in
it), `outcomes` (what does an answer mean), `ledger` (what was acknowledged), `oracle` (which
medians that makes) and `reporting` (the result). The shell around it: `sending` (aiohttp),
`verifying` (asks for the medians), `running` (one run from probe to report), `progress`, `cli`.
"""
