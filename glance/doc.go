// Package glance reads and writes images of the image service: what an image
// is, its bytes, verified while they stream, and the upload of a snapshot.
//
// It speaks the Image API v2 and knows nothing of instances or containers, nor
// of what is in an image. Images are hostile input: only the service's own
// endpoint is read (never direct_url or locations), at most the declared size
// is taken, and the reader's end says whether the hash is right.
//
// It may be imported by internal/daemon; driver/local and driver/compute see it
// through interfaces of their own. Subpackages: cache (one download for many)
// and glancetest (an image service in memory).
//
// Source: nova/image/glance.py, and the Image API v2 reference.
package glance
