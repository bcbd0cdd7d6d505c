package objects

// KeyPair is the public half of a user's key. Follows nova/objects/keypair.py,
// KeyPair 1.4.
type KeyPair struct{ *Object }

func keyPair(o *Object) KeyPair { return KeyPair{o} }

// Wire returns the object.
func (k KeyPair) Wire() *Object { return k.Object }

// UnmarshalJSON reads a KeyPair primitive.
func (k *KeyPair) UnmarshalJSON(raw []byte) error { return read(raw, "KeyPair", &k.Object) }

// KeyName is the name that the user chose.
func (k KeyPair) KeyName() string { return k.String("name") }

// PublicKey is in OpenSSH form.
func (k KeyPair) PublicKey() string { return k.String("public_key") }

// KeyType is ssh or x509.
func (k KeyPair) KeyType() string { return k.String("type") }
