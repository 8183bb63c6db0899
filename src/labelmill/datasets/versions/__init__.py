"""Dataset versions: immutable folders of a manifest and its tables, over media stored once.

<workspace>/versions/<dataset>/v<N>/
  manifest.json     what the version is; its SHA-256 is the version's identity
  manifest.sha256   that identity, as sha256sum writes it
  frames.parquet    one row a frame, with its split
  regions.parquet   one row a region, with its label and who decided it
  line.yaml         the line file as it was
"""
