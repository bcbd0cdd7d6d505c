// Package rfb serves a screen by the protocol of VNC: RFB 3.3, 3.7 and 3.8 (RFC
// 6143) with the extensions that clients of today use.
//
//	security   None; VeNCrypt 0.2 with X509None (TLS, and client certificates
//	           if asked for), as the proxy of Nova speaks it
//	encodings  Tight (fill, palette, copy), ZRLE, Raw, by the client's preference
//	sizes      DesktopSize and ExtendedDesktopSize; the client may ask for one
//	input      keys and pasted text (Latin-1); pointers are read and ignored
//
// What the screen shows and what keys mean is Screen's. Clients are hostile:
// each message is bounded, and a client that does not take what it is sent is
// let go. The package logs nothing and imports no other of ours but errdefs.
package rfb
