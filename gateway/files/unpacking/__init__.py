"""Archives that are unpacked while they arrive: tar (plain, gzip, zstd) and zip."""
