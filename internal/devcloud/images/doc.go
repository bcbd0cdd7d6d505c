// Package images is the image API (Glance v2) of the embedded cloud: images
// with their data in files, properties, tags, members, import by
// glance-direct.
//
// The database says what there is; data is a file named by the image's id that
// exists, whole and synced, before the image becomes active. What an upload
// that was cut off left behind goes at the next start, and its image is queued
// again, as Glance does when an upload fails.
//
// Left out: image locations, several stores, web-download and copy-image
// imports (refused as where they are not enabled), the cache API, metadata
// definitions (always none), signatures. Statuses, shapes and texts follow
// Glance 25 (Zed) with the default policies; a reader changes nothing.
//
// Only internal/devcloud imports it.
package images
