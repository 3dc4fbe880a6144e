"""The bundled studies: one TOML file each, read by `mnist_ablate.design.study`."""
