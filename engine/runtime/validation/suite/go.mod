module github.com/gantry-project/gantry/engine/runtime/validation/suite

go 1.26.0

require github.com/opencontainers/runtime-tools v0.9.1-0.20221107090550-2e043c6bd626
