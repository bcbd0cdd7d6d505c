// Package validation runs the validation suite of the OCI runtime tools
// (github.com/opencontainers/runtime-tools, validation/) against gantry
// runtime: make validate, as root. The suite's version is pinned by a module of
// its own (suite/), which only its tests are built from.
package validation
