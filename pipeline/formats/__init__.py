"""What the parts of the pipeline agree on: files, columns, transforms, fingerprints, errors, seeds.

Needs numpy, pyarrow and pydantic only, so that both the Dask side and the torch side can import it.
"""
