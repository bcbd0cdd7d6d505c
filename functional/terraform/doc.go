// Package terraform sets up, changes and takes down what testdata/main.tf says
// in a gantry cloud, by Terraform and its OpenStack provider.
//
// Neither is had from the registries that the other tests need, so this is no
// part of make test: make terraform PROVIDER=FILE runs it where both are.
package terraform
