// Package rest is what the APIs of the embedded cloud have in common below
// their own words: routes, request ids, tokens, microversions, bodies with
// limits, errors in the shape of the service, paging and sorting of lists.
//
// It knows nothing of identity, servers or networks. Only internal/devcloud
// imports it.
package rest
