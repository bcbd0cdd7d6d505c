package objects

// InstanceInfoCache is the instance's network as the API shows it. Follows
// nova/objects/instance_info_cache.py, InstanceInfoCache 1.5.
type InstanceInfoCache struct{ *Object }

// NewInstanceInfoCache returns a cache to save.
func NewInstanceInfoCache(uuid string, info NetworkInfo) InstanceInfoCache {
	c := InstanceInfoCache{New("InstanceInfoCache")}
	c.Set("instance_uuid", uuid)
	c.SetNetworkInfo(info)
	return c
}

// Wire returns the object.
func (c InstanceInfoCache) Wire() *Object { return c.Object }

// UnmarshalJSON reads an InstanceInfoCache primitive.
func (c *InstanceInfoCache) UnmarshalJSON(raw []byte) error {
	return read(raw, "InstanceInfoCache", &c.Object)
}

// NetworkInfo parses the cached text; nil when null, empty or not set.
func (c InstanceInfoCache) NetworkInfo() (NetworkInfo, error) {
	return ParseNetworkInfo(c.String("network_info"))
}

// SetNetworkInfo sets the cached text.
func (c InstanceInfoCache) SetNetworkInfo(info NetworkInfo) { c.Set("network_info", info.Text()) }
