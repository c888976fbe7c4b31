"""Hostile input for the decoders and the servers. It imports all programs; none imports it.

A *body* is drawn from a grammar (`grammar`), spoilt (`mutation`), or written by hand (`corpus`).
`decoding` gives bodies to the decoders in this process and looks at what comes out; `campaign`
sends them, and addresses, headers and framing that are no better (`framing`), to servers that run.
"""
