// Package mirror copies container images between registries, archives,
// directories, the image service and the engine.
//
// An image is what go-containerregistry says it is (v1.Image): a manifest, a
// configuration and layers, each known by its digest. A copy sends what the
// other side does not have: a registry is asked for each blob, the image
// service and the engine for the whole image, which they keep as one. Blobs
// that came from a registry wait in Options.Cache until the copy is whole, so
// that the next try does not fetch them again.
//
// Registries are reached by TLS unless Options.Insecure names them, with the
// credentials of docker's own configuration files. A registry is always named
// by its host: there is no default one.
//
// Sources of the formats: OCI distribution specification 1.1, OCI image layout
// 1.1, docker image specification v1.2 (manifest.json). The package imports
// internal/errdefs of ours; the image service and the engine are interfaces.
package mirror
