package images

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gantry-project/gantry/internal/devcloud/rest"
)

func TestWrongInputIsRefusedInGlancesWords(t *testing.T) {
	st := newStore(t)
	at := st.image(`,"prop":"v"`)
	before := st.want(200, "demo", "GET", at, nil).raw
	create := func(body, want string) { st.refused("POST", "/v2/images", body, want) }
	create(`{`, "400 Malformed JSON in request body.")
	create(``, "400 Body expected in request.")
	create(`7`, "400 Unexpected body type. Expected list/dict.")
	create(`{"name":5}`, "400 Provided object does not match schema 'image': 5 is not of type 'null', 'string'")
	create(`{"disk_format":"x"}`, "400 Provided object does not match schema 'image': 'x' is not one of [None, 'ami', 'ari', 'aki', 'vhd', 'vhdx', 'vmdk', 'raw', 'qcow2', 'vdi', 'iso', 'ploop']")
	create(`{"prop":5}`, "400 Provided object does not match schema 'image': 5 is not of type 'string'")
	create(`{"tags":[5]}`, "400 Provided object does not match schema 'image': 5 is not of type 'string'")
	create(`{"min_disk":-1}`, "400 Invalid value '-1' for parameter 'min_disk': Cannot be a negative value")
	create(`{"min_ram":99999999999}`, "400 'min_ram' value out of range, must not exceed 2147483647.")
	create(`{"min_ram":1.5}`, "400 Provided object does not match schema 'image': 1.5 is not of type 'integer'")
	create(`{"id":"x"}`, `400 Provided object does not match schema 'image': 'x' does not match '^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$'`)
	create(`{"self":"x"}`, "403 Attribute 'self' is read-only.")
	create(`{"status":"active"}`, "403 Attribute 'status' is read-only.")
	create(`{"deleted":"x"}`, "403 Access was denied to this resource. Attribute 'deleted' is reserved.")
	create(`{"os_glance_x":"x"}`, "403 Access was denied to this resource. Attribute 'os_glance_x' is reserved.")
	create(`{"visibility":"public"}`, "403 You are not authorized to complete publicize_image action.")
	create(`{"owner":"p-other"}`, "403 You are not permitted to create images owned by 'p-other'.")

	patch := func(body, want string) { st.refused("PATCH", at, body, want) }
	patch(`{}`, "400 Request body must be a JSON array of operation objects.")
	patch(`[7]`, "400 Operations must be JSON objects.")
	patch(`[{}]`, "400 Unable to find `op` in JSON Schema change. It must be one of the following: add, remove, replace.")
	patch(`[{"op":"move"}]`, "400 Invalid operation: `move`. It must be one of the following: add, remove, replace.")
	patch(`[{"op":"add"}]`, "400 Unable to find 'path' in JSON Schema change")
	patch(`[{"op":"add","path":"name","value":"x"}]`, "400 Pointer `name` does not start with \"/\".")
	patch(`[{"op":"add","path":"/a~2","value":"x"}]`, "400 Pointer `/a~2` contains \"~\" not part of a recognized escape sequence.")
	patch(`[{"op":"add","path":"/a/b","value":"x"}]`, "400 Invalid JSON pointer for this resource: '/a/b'")
	patch(`[{"op":"add","path":"/name"}]`, `400 Operation "add" requires a member named "value".`)
	patch(`[{"op":"replace","path":"/id","value":"x"}]`, "403 Attribute 'id' is read-only.")
	patch(`[{"op":"remove","path":"/name"}]`, "403 Access was denied to this resource. Property name may not be removed.")
	patch(`[{"op":"replace","path":"/nope","value":"x"}]`, "409 There was a conflict when trying to complete your request. Property nope does not exist.")
	patch(`[{"op":"replace","path":"/name","value":"new"},{"op":"remove","path":"/nope"}]`, "409 There was a conflict when trying to complete your request. Property nope does not exist.")
	patch(`[{"op":"replace","path":"/visibility","value":"public"}]`, "403 You are not authorized to complete publicize_image action.")
	patch(`[{"op":"replace","path":"/owner","value":"x"}]`, "403 Access was denied to this resource. Owner can't be updated by non admin.")
	patch(`[{"op":"add","path":"/locations/-","value":{}}]`, "403 It's not allowed to add locations if locations are invisible.")
	st.want(415, "demo", "PATCH", at, `[]`, "Content-Type", "application/json")
	if after := st.want(200, "demo", "GET", at, nil).raw; after != before {
		t.Errorf("%s became %s", before, after)
	}
}

// refused sends what demo may not, and looks at status and text.
func (st *store) refused(method, path, body, want string) {
	st.t.Helper()
	a := st.do("demo", method, path, body, "Accept", "text/plain")
	if got := strings.Join(strings.Fields(a.raw), " "); got != strings.Replace(want, " ", " "+strings.Fields(a.raw)[1]+" ", 1) && !strings.HasSuffix(got, want[4:]) || !strings.HasPrefix(want, fmt.Sprint(a.status)) {
		st.t.Errorf("%s %s: %d %q, want %q", method, body, a.status, got, want)
	}
}

func TestPatch(t *testing.T) {
	st := newStore(t)
	at := st.image("")
	a := st.want(200, "demo", "PATCH", at, `[{"op":"add","path":"/a~1b","value":"x"},{"op":"replace","path":"/a~1b","value":"y"},{"op":"add","path":"/gone","value":"x"},
		{"op":"remove","path":"/gone"},{"op":"replace","path":"/tags","value":["t"]},{"op":"replace","path":"/name","value":null},{"op":"add","path":"/min_ram","value":5},
		{"op":"replace","path":"/visibility","value":"community"},{"op":"replace","path":"/os_hidden","value":true}]`)
	if a.text("a/b") != "y" || a.body["gone"] != nil || a.body["name"] != nil || a.body["min_ram"] != 5.0 || a.text("visibility") != "community" || a.body["os_hidden"] != true {
		t.Errorf("%s", a.raw)
	}
	st.want(200, "demo", "PATCH", at, `[{"add":"/old","value":"x"}]`, "Content-Type", patchV20)
	st.want(409, "demo", "PATCH", at, `[{"add":"/old","value":"x"}]`, "Content-Type", patchV20)
	st.want(400, "demo", "PATCH", at, `[{"add":"/a","remove":"/b"}]`, "Content-Type", patchV20)
	st.want(200, "demo", "PATCH", at, `[{"op":"replace","path":"/protected","value":true}]`)
	st.want(403, "demo", "DELETE", at, nil)
	st.want(204, "demo", "PUT", at+"/file", "x")
	st.want(403, "demo", "PATCH", at, `[{"op":"replace","path":"/disk_format","value":"qcow2"}]`)
}

func TestQuotas(t *testing.T) {
	st := newStore(t)
	at := st.image("")
	var props, tags []string
	for i := range propertyQuota + 1 {
		props = append(props, fmt.Sprintf(`{"op":"add","path":"/p%d","value":"x"}`, i))
		tags = append(tags, fmt.Sprintf(`"t%d"`, i))
	}
	a := st.want(413, "demo", "PATCH", at, "["+strings.Join(props, ",")+"]")
	if !strings.Contains(a.raw, "The limit has been exceeded on the number of allowed image properties. Attempted: 129, Maximum: 128") {
		t.Errorf("%s", a.raw)
	}
	st.want(200, "demo", "PATCH", at, "["+strings.Join(props[:propertyQuota], ",")+"]")
	st.want(413, "demo", "POST", "/v2/images", `{"tags":[`+strings.Join(tags, ",")+`]}`)
	for i := range memberQuota {
		st.want(200, "demo", "POST", at+"/members", fmt.Sprintf(`{"member":"m%d"}`, i))
	}
	st.want(413, "demo", "POST", at+"/members", `{"member":"one more"}`)
}

func TestWhoSeesAndChangesWhat(t *testing.T) {
	st := newStore(t)
	for visibility, seen := range map[string]bool{"private": false, "shared": false, "public": true, "community": true} {
		who := "demo"
		if visibility == "public" {
			who = "admin"
		}
		at := "/v2/images/" + st.want(201, who, "POST", "/v2/images", `{"name":"`+visibility+`","disk_format":"raw","container_format":"bare","visibility":"`+visibility+`"}`).text("id")
		status := map[bool]int{true: 200, false: 404}[seen]
		refused := map[bool]int{true: 403, false: 404}[seen]
		st.want(status, "other", "GET", at, nil)
		for _, r := range [][3]string{
			{"PATCH", "", `[{"op":"replace","path":"/name","value":"x"}]`},
			{"DELETE", "", ""},
			{"PUT", "/file", "x"},
			{"PUT", "/stage", "x"},
			{"PUT", "/tags/x", ""},
			{"POST", "/actions/deactivate", ""},
			{"POST", "/members", `{"member":"p-other"}`},
		} {
			if a := st.do("other", r[0], at+r[1], r[2]); a.status != refused {
				t.Errorf("%s: %s %s: %d %s", visibility, r[0], r[1], a.status, a.raw)
			}
			if a := st.do("reader", r[0], at+r[1], r[2]); a.status != 403 && a.status != 404 {
				t.Errorf("%s, reader: %s %s: %d %s", visibility, r[0], r[1], a.status, a.raw)
			}
		}
		st.want(200, "admin", "GET", at, nil)
	}
	st.want(403, "reader", "POST", "/v2/images", `{}`)
	st.want(200, "reader", "GET", "/v2/images", nil)
	st.want(401, "nobody", "GET", "/v2/images", nil)
	for who, want := range map[string]string{"other": "public", "reader": "private shared public community", "admin": "private shared public"} {
		l := st.want(200, who, "GET", "/v2/images?sort=name", nil)
		names := map[string]bool{}
		for _, i := range l.body["images"].([]any) {
			names[i.(map[string]any)["name"].(string)] = true
		}
		if len(names) != len(strings.Fields(want)) {
			t.Errorf("%s: %v, want %s", who, names, want)
		}
	}
}

func TestMembers(t *testing.T) {
	st := newStore(t)
	at := st.image(`,"name":"s"`)
	st.want(404, "other", "GET", at, nil)
	a := st.want(200, "demo", "POST", at+"/members", `{"member":"p-other"}`)
	if a.text("status") != "pending" || a.text("member_id") != "p-other" || a.text("schema") != "/v2/schemas/member" {
		t.Errorf("%s", a.raw)
	}
	st.want(409, "demo", "POST", at+"/members", `{"member":"p-other"}`)
	st.want(400, "demo", "POST", at+"/members", `{"member":""}`)
	st.want(400, "demo", "POST", at+"/members", `{}`)
	st.want(200, "demo", "POST", at+"/members", `{"member":"p-third"}`)
	st.want(200, "other", "GET", at, nil)
	count := func(q string) int {
		return len(st.want(200, "other", "GET", "/v2/images?"+q, nil).body["images"].([]any))
	}
	if count("visibility=shared") != 0 || count("visibility=shared&member_status=pending") != 1 || count("member_status=all") != 1 {
		t.Error("a pending image is listed wrongly")
	}
	st.want(403, "demo", "PUT", at+"/members/p-other", `{"status":"accepted"}`)
	st.want(400, "other", "PUT", at+"/members/p-other", `{"status":"x"}`)
	st.want(404, "other", "PUT", at+"/members/p-third", `{"status":"accepted"}`)
	st.want(404, "other", "GET", at+"/members/p-third", nil)
	st.want(200, "other", "PUT", at+"/members/p-other", `{"status":"accepted"}`)
	if count("") != 1 {
		t.Error("an accepted image is not listed")
	}
	if l := st.want(200, "other", "GET", at+"/members", nil).body["members"].([]any); len(l) != 1 {
		t.Errorf("a member sees %v", l)
	}
	if l := st.want(200, "demo", "GET", at+"/members", nil).body["members"].([]any); len(l) != 2 {
		t.Errorf("the owner sees %v", l)
	}
	st.want(403, "other", "DELETE", at+"/members/p-other", nil)
	st.want(204, "demo", "DELETE", at+"/members/p-other", nil)
	st.want(404, "other", "GET", at, nil)
	st.want(200, "demo", "PATCH", at, `[{"op":"replace","path":"/visibility","value":"private"}]`)
	st.want(403, "demo", "GET", at+"/members", nil)
}

func TestDeactivate(t *testing.T) {
	st := newStore(t)
	at := st.image("")
	st.want(403, "demo", "POST", at+"/actions/deactivate", nil)
	st.want(204, "demo", "PUT", at+"/file", "x")
	st.want(204, "demo", "POST", at+"/actions/reactivate", nil)
	for range 2 {
		st.want(204, "demo", "POST", at+"/actions/deactivate", nil)
	}
	st.want(403, "demo", "GET", at+"/file", nil)
	st.want(200, "admin", "GET", at+"/file", nil)
	st.want(204, "demo", "POST", at+"/actions/reactivate", nil)
	st.want(200, "demo", "GET", at+"/file", nil)
}

func TestLists(t *testing.T) {
	st := newStore(t)
	for i, name := range []string{"c", "a", "b", "d,e"} {
		st.now.Store(int64(i))
		at := st.image(fmt.Sprintf(`,"name":%q,"kind":"k%d","tags":["all","t%d"],"min_ram":%d`, name, i%2, i, i))
		if i < 2 {
			st.want(204, "demo", "PUT", at+"/file", strings.Repeat("x", 10*(i+1)))
		}
	}
	names := func(q string) (all string, a answer) {
		a = st.want(200, "demo", "GET", "/v2/images?"+q, nil)
		for _, i := range a.body["images"].([]any) {
			all += i.(map[string]any)["name"].(string)
		}
		return all, a
	}
	for q, want := range map[string]string{
		"": "d,ebac", "sort=name:asc": "abcd,e", "sort=status:asc,name:desc": "cad,eb", "sort_key=name&sort_dir=desc": "d,ecba", "sort_key=size&sort_dir=desc": "acd,eb",
		"name=a": "a", "name=in:a,b&sort=name:asc": "ab", "name=in:%22d,e%22,a&sort=name:asc": "ad,e", "status=active": "ac", "size_min=15": "a", "size_max=15": "c",
		"tag=all&tag=t2": "b", "kind=k1&sort=name:asc": "ad,e", "kind=k7": "", "min_ram=2": "b", "created_at=gt:2026-01-02T03:04:01Z": "d,eb", "created_at=lte:2026-01-02T03:04:00Z": "c",
		"owner=p-demo": "d,ebac", "owner=p-x": "", "visibility=private": "", "visibility=all": "d,ebac", "disk_format=raw&container_format=in:bare,ovf": "d,ebac", "limit=0": "", "os_hidden=true": "", "protected=false": "d,ebac",
	} {
		if got, _ := names(q); got != want {
			t.Errorf("%q: %s, want %s", q, got, want)
		}
	}
	var all, q string
	for range 9 {
		q = "limit=2&sort=name:asc" + q
		got, a := names(q)
		all += got
		if a.text("first") != "/v2/images?limit=2&sort=name%3Aasc" {
			t.Errorf("first %s", a.text("first"))
		}
		next := a.text("next")
		if next == "" {
			break
		}
		q = strings.TrimPrefix(next, "/v2/images?limit=2&sort=name%3Aasc")
	}
	if all != "abcd,e" {
		t.Errorf("pages: %s", all)
	}
	for _, q := range []string{
		"limit=x", "limit=-1", "marker=x", "sort_key=x", "sort_dir=x", "sort=name:x", "sort=name&sort_key=name", "sort_key=name&sort_dir=asc&sort_dir=asc", "visibility=x", "size_min=x",
		"created_at=x", "created_at=gt:x", "member_status=x", "os_hidden=x", "protected=x", "name=foo:x", "name=gt:x", "name=in:%22a", "changes-since=x",
	} {
		if a := st.do("demo", "GET", "/v2/images?"+q, nil); a.status != 400 {
			t.Errorf("%s: %d %s", q, a.status, a.raw)
		}
	}
}

func TestErrorsInThreeShapes(t *testing.T) {
	st := newStore(t)
	for accept, want := range map[string]string{
		"":                               "404 Not Found\n\nNo image found with ID <x>\n\n\n   ",
		"text/plain":                     "404 Not Found\n\nNo image found with ID <x>\n\n\n   ",
		"*/*":                            "<html>\n <head>\n  <title>404 Not Found</title>\n </head>\n <body>\n  <h1>404 Not Found</h1>\n  No image found with ID &lt;x&gt;<br /><br />\n\n\n\n </body>\n</html>",
		"application/json, text/html":    "<html>",
		"application/json":               `{"code":"404 Not Found","message":"No image found with ID \u0026lt;x\u0026gt;\u003cbr /\u003e\u003cbr /\u003e\n\n\n","title":"Not Found"}`,
		"*/*;q=0.8, application/json":    `{"code"`,
		"application/json;q=x, text/*":   "<html>",
		"image/png, application/*;q=0.1": `{"code"`,
	} {
		a := st.do("demo", "GET", "/v2/images/%3Cx%3E", nil, "Accept", accept)
		if want = strings.ReplaceAll(want, "\n\n\n\",", `\n\n\n",`); a.status != 404 || !strings.HasPrefix(a.raw, want) {
			t.Errorf("%q: %d %q", accept, a.status, a.raw)
		}
	}
	if a := st.do("", "GET", "/v2/images", nil, "Accept", "application/json"); a.status != 401 || a.text("title") != "Unauthorized" {
		t.Errorf("%d %s", a.status, a.raw)
	}
	if a := st.do("demo", "PUT", "/v2/images", nil); a.status != 405 || !strings.Contains(a.raw, "The method PUT is not allowed") {
		t.Errorf("%d %s", a.status, a.raw)
	}
}

func TestInformation(t *testing.T) {
	st := newStore(t)
	st.want(300, "", "GET", "/", nil)
	st.want(200, "", "GET", "/versions", nil)
	for path, status := range map[string]int{
		"/v2/schemas/image": 200, "/v2/schemas/images": 200, "/v2/schemas/member": 200, "/v2/schemas/members": 200, "/v2/schemas/task": 200, "/v2/info/import": 200,
		"/v2/info/stores": 404, "/v2/info/usage": 200, "/v2/tasks": 403, "/v2/cached_images": 404,
		"/v2/metadefs/namespaces": 200, "/v2/metadefs/namespaces/x": 404, "/v2/metadefs/resource_types": 200, "/v2/schemas/metadefs/namespace": 200,
		"/v2/schemas/metadefs/resource_types": 200,
	} {
		st.want(status, "demo", "GET", path, nil)
	}
	if a := st.want(200, "demo", "GET", "/v2/schemas/image", nil); a.text("name") != "image" {
		t.Errorf("%s", a.raw)
	}
	st.want(200, "admin", "GET", "/v2/tasks", nil)
}

func TestForTheComputeAPI(t *testing.T) {
	st := newStore(t)
	demo := everybody["demo"]
	var ids []string
	for i := range 3 {
		st.now.Store(int64(i))
		image, err := st.Create(t.Context(), demo, NewImage{Name: "daily", MinDisk: 1, Properties: map[string]string{"instance_uuid": "i", "backup_type": "daily"}, Tags: []string{"t"}})
		if err != nil || image.Visibility != "private" || image.Status != "queued" || *image.Owner != "p-demo" {
			t.Fatalf("%+v, %v", image, err)
		}
		ids = append(ids, image.ID)
	}
	all, err := st.Images(t.Context(), demo, map[string]string{"instance_uuid": "i", "backup_type": "daily"})
	if err != nil || len(all) != 3 || all[0].ID != ids[2] || all[2].Properties["backup_type"] != "daily" {
		t.Fatalf("%v, %v", all, err)
	}
	if all, err := st.Images(t.Context(), everybody["other"], map[string]string{"instance_uuid": "i"}); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	if err := st.Delete(t.Context(), demo, ids[0]); err != nil {
		t.Error(err)
	}
	if _, err := st.Image(t.Context(), everybody["other"], ids[1]); err == nil {
		t.Error("another project's private image")
	}
	if _, err := st.Create(t.Context(), demo, NewImage{Name: strings.Repeat("x", 256)}); err == nil {
		t.Error("a name that is too long")
	} else if e, ok := err.(*rest.Error); !ok || e.Status != 400 {
		t.Errorf("%v", err)
	}
}

// FuzzAPI throws requests at everything: never a 5xx, never a panic.
func FuzzAPI(f *testing.F) {
	st := newStore(f)
	at := st.image("")
	for _, x := range [][3]string{
		{"POST", "/v2/images", `{"name":"x","tags":["a"],"min_disk":1e99,"p":"v"}`},
		{"PATCH", at, `[{"op":"add","path":"/a~1b","value":"x"},{"op":"replace","path":"/min_ram","value":-0}]`},
		{"PATCH", at, `[{"op":"remove","path":"/locations/0"}]`},
		{"GET", "/v2/images?name=in:%22a%22,b&sort=name:asc,size&limit=3&marker=x&created_at=gt:2020-01-01", ""},
		{"GET", "/v2/images?size_min=99999999999999999999&tag=%00", ""},
		{"PUT", at + "/file", "data"},
		{"PUT", at + "/tags/x", ""},
		{"POST", at + "/members", `{"member":"x"}`},
		{"POST", at + "/import", `{"method":{"name":["glance-direct"]}}`},
		{"GET", at + "/file", ""},
	} {
		f.Add(x[0], x[1], x[2])
	}
	f.Fuzz(func(t *testing.T, method, path, body string) {
		if !strings.HasPrefix(path, "/") || !usable(method, path) {
			return
		}
		st.t = t
		for _, who := range []string{"demo", "admin"} {
			if a := st.do(who, method, path, body); a.status >= 500 {
				t.Errorf("%s %s %s: %d %s", method, path, body, a.status, a.raw)
			}
		}
	})
}

// usable reports whether a request can be made of these at all.
func usable(method, path string) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	httptest.NewRequest(method, "http://cloud:9292"+path, nil)
	return true
}

func FuzzReadPointer(f *testing.F) {
	for _, s := range []string{"/name", "/a~1b", "/", "//", "/a/b", "/ ", "/~", "/locations/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if name, err := readPointer(s); err == nil && !strings.HasPrefix(s, "/") {
			t.Errorf("%q is %q", s, name)
		}
	})
}

func FuzzSplitQuoted(f *testing.F) {
	for _, s := range []string{`a,b`, `"a,b",c`, `"a`, `a"b`, `,`, ``} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := splitQuoted(s)
		if err == nil && (len(list) == 0 || !strings.Contains(s, `"`) && strings.Join(list, ",") != s) {
			t.Errorf("%q: %q", s, list)
		}
	})
}
