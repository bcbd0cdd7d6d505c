//go:build functional

package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const browserProgram = "chromium-headless-shell"

// patience bounds what a page may take; it is not what is promised.
const patience = time.Minute

// browser is one tab of a Chromium of its own, on one Horizon.
type browser struct {
	t        *testing.T
	ctx      context.Context
	url      string
	shots    string // where pictures go, and how their names begin
	taken    int
	mu       sync.Mutex
	failures []string // requests that failed and scripts that threw, since the last look
}

// startBrowser starts one that ends with the test. Pictures have names that begin
// with prefix.
func startBrowser(t *testing.T, url, prefix string) *browser {
	t.Helper()
	if _, err := exec.LookPath(browserProgram); err != nil {
		t.Fatalf("install %s (make deps): %v", browserProgram, err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	shots, err := filepath.Abs("../../bin/screenshots")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(shots, 0o755); err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(self), chromedp.Env(asBrowser+"=1"), chromedp.NoSandbox, chromedp.WindowSize(1400, 1000),
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("lang", "en"))
	ctx, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(ctx)
	b := &browser{t: t, ctx: ctx, url: url, shots: filepath.Join(shots, prefix)}
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		cancel()
		cancelAllocator()
	})
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	return b
}

// listen collects what goes wrong behind a page.
func (b *browser) listen(event any) {
	var failure string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		failure = "script: " + e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			failure += " " + x.Description
		}
	case *network.EventResponseReceived:
		if e.Response.Status >= 400 {
			failure = fmt.Sprintf("%d of %s", e.Response.Status, e.Response.URL)
		}
	default:
		return
	}
	if failure != "" {
		b.mu.Lock()
		b.failures = append(b.failures, failure)
		b.mu.Unlock()
	}
}

// run does it within patience or fails the test.
func (b *browser) run(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.stuck(err)
	}
}

// stuck fails the test with a picture of the page as it is.
func (b *browser) stuck(cause any) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, _ := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
	picture := b.shots + "-failed-" + strings.ReplaceAll(filepath.Base(b.t.Name()), " ", "_") + ".png"
	_ = os.WriteFile(picture, png, 0o644)
	b.t.Fatalf("%v; behind the page: %v; the page is in %s and says:\n%s", cause, b.failures, picture, text[:min(len(text), 3000)])
}

// ask evaluates a script in the page.
func ask[T any](b *browser, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	got, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		b.stuck(err)
	}
	return got
}

// until waits for a script to say true.
func (b *browser) until(what, script string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// an error is a page on its way
		if yes, err := chromedp.Run(ctx, chromedp.Evaluate[bool](script)); err == nil && yes {
			return
		}
		select {
		case <-ctx.Done():
			b.stuck(what + ": not in time")
			return
		case <-tick.C:
		}
	}
}

// settled says whether a page has all it asked for.
const settled = `document.readyState === 'complete' && !(window.jQuery && jQuery.active) && (() => {
  const i = window.angular && angular.element(document.body).injector();
  return !i || i.get('$http').pendingRequests.length === 0;
})()`

// open goes to a page.
func (b *browser) open(path string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	// a page that goes elsewhere by itself, after a form, may come in between
	for err := chromedp.Do(ctx, chromedp.Navigate(b.url+path)); err != nil; err = chromedp.Do(ctx, chromedp.Navigate(b.url+path)) {
		select {
		case <-ctx.Done():
			b.stuck(err)
		case <-tick.C:
		}
	}
	b.until(path+" is complete", settled)
}

// tab opens a tab of the page.
func (b *browser) tab(name string) {
	b.t.Helper()
	b.open(ask[string](b, "location.pathname") + "?tab=" + name)
}

// fetch is what the browser gets from a path.
func (b *browser) fetch(path string) string {
	b.t.Helper()
	b.until(path+" is had", `(window.had ||= {})[`+quote(path)+`] !== undefined || (fetch(`+quote(path)+`).then(r => r.text()).then(t => { window.had[`+quote(path)+`] = t }), false)`)
	return ask[string](b, `window.had[`+quote(path)+`]`)
}

// wants waits until each text is seen on the page.
func (b *browser) wants(texts ...string) {
	b.t.Helper()
	for _, text := range texts {
		b.until(fmt.Sprintf("the page says %q", text), `document.body.innerText.toLowerCase().includes(`+quote(strings.ToLower(text))+`)`)
	}
}

// lacks waits until none of the texts is seen on the page.
func (b *browser) lacks(texts ...string) {
	b.t.Helper()
	for _, text := range texts {
		b.until(fmt.Sprintf("the page does not say %q", text), `!document.body.innerText.toLowerCase().includes(`+quote(strings.ToLower(text))+`)`)
	}
}

// seen finds the first visible element of a selector with that text ("" for any),
// by its text, value or title, and marks it.
const seen = `((selector, text) => {
  document.querySelectorAll('[data-gantry]').forEach(e => e.removeAttribute('data-gantry'));
  const is = s => (s || '').replace(/\s+/g, ' ').trim() === text;
  const found = [...document.querySelectorAll(selector)].find(e =>
    e.getClientRects().length && (!text || is(e.innerText) || is(e.value) || is(e.title)));
  if (!found) return false;
  found.setAttribute('data-gantry', '');
  found.scrollIntoView({block: 'center'});
  return true;
})`

const marked = chromedp.CSS(`[data-gantry]`)

// still says whether what is marked is where it was when this was asked before:
// forms slide in.
const still = `(() => {
  const at = JSON.stringify(document.querySelector('[data-gantry]').getBoundingClientRect());
  const same = window.gantryAt === at;
  window.gantryAt = at;
  return same;
})()`

// find waits for such an element to be there and to stand still.
func (b *browser) find(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("%s with text %q", selector, text), seen+`(`+quote(selector)+`,`+quote(text)+`) && `+still)
}

// click clicks at it, as a person does.
func (b *browser) click(selector, text string) {
	b.t.Helper()
	b.find(selector, text)
	b.run(chromedp.Click(marked))
}

// press clicks at what stands behind a link or button of that name.
func (b *browser) press(name string) {
	b.t.Helper()
	b.click(`a, button, input[type=submit], input[type=button]`, name)
}

// row finds the row of a table that says text, and presses what it has of that name,
// if need be in its menu.
func (b *browser) row(text, name string) {
	b.t.Helper()
	row := `[...document.querySelectorAll('tr')].filter(e => e.getClientRects().length).find(e => e.innerText.includes(` + quote(text) + `))`
	b.until("a row says "+text, `(r => {
  document.querySelectorAll('[data-row]').forEach(e => e.removeAttribute('data-row'));
  if (r) r.setAttribute('data-row', '');
  return !!r;
})(`+row+`)`)
	if !ask[bool](b, seen+`('[data-row] a, [data-row] button',`+quote(name)+`)`) {
		b.click("[data-row] .dropdown-toggle", "")
	}
	b.click("[data-row] a, [data-row] button", name)
}

// submit sends the form that is open above the page.
func (b *browser) submit(name string) {
	b.t.Helper()
	b.click(".modal input[type=submit], .modal button, .modal a", name)
	b.until("the form is gone", `!document.querySelector('.modal.in, .modal-backdrop') && `+settled)
}

// follow presses a link that leads to another page, and waits for it.
func (b *browser) follow(name string) {
	b.t.Helper()
	from := ask[string](b, "location.pathname")
	b.press(name)
	b.until("the page of "+name, `location.pathname !== `+quote(from)+` && `+settled)
}

// fill types into a field that is visible, over what is there.
func (b *browser) fill(selector, text string) {
	b.t.Helper()
	b.find(selector, "")
	b.run(chromedp.Focus(marked), chromedp.Evaluate[chromedp.Void](`document.querySelector('[data-gantry]').select()`),
		chromedp.SendKeys(marked, text))
}

// item adds one of one's own to the metadata of a form.
func (b *browser) item(name, value string) {
	b.t.Helper()
	b.fill(".modal input[name=customItem]", name)
	b.until("the item is taken", `!!document.querySelector('.modal span[title="`+name+`"]') || (document.querySelector('.modal .input-group-btn .btn').click(), false)`)
	b.fill(`.modal span[title="`+name+`"] ~ input`, value)
}

// upload clicks at a button that asks for a file, and gives it one.
func (b *browser) upload(selector, file string) {
	b.t.Helper()
	b.find(selector, "")
	b.run(func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		if _, err := cdp.Call(ctx, target, page.SetInterceptFileChooserDialog, page.SetInterceptFileChooserDialogParams{Enabled: true}); err != nil {
			return chromedp.Void{}, err
		}
		asks := chromedp.WaitEvent(page.FileChooserOpened, func(page.EventFileChooserOpened) bool { return true }, chromedp.Click(marked))
		for {
			// a click before the form's script is ready does nothing
			short, cancel := context.WithTimeout(ctx, 5*time.Second)
			asked, err := asks(short, target)
			cancel()
			switch {
			case err == nil:
				_, err = cdp.Call(ctx, target, dom.SetFileInputFiles, dom.SetFileInputFilesParams{Files: []string{file}, BackendNodeID: asked.BackendNodeID})
				return chromedp.Void{}, err
			case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
				return chromedp.Void{}, err
			}
		}
	})
}

// choose picks an option of a select element by its text.
func (b *browser) choose(selector, option string) {
	b.t.Helper()
	b.until(fmt.Sprintf("%s has the option %q", selector, option), `((s, text) => {
  const e = document.querySelector(s);
  const o = e && [...e.options].find(o => o.text.trim().startsWith(text));
  if (!o) return false;
  e.value = o.value;
  e.dispatchEvent(new Event('input', {bubbles: true}));
  e.dispatchEvent(new Event('change', {bubbles: true}));
  if (window.jQuery) jQuery(e).trigger('change');
  return true;
})(`+quote(selector)+`,`+quote(option)+`)`)
}

// look takes a picture of the page and says what is wrong with it: errors that it
// shows, but for those that are meant, and what failed behind it.
func (b *browser) look(name string, meant ...string) {
	b.t.Helper()
	b.until(name+" is complete", settled)
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.stuck(err)
	}
	b.taken++
	if err := os.WriteFile(fmt.Sprintf("%s-%02d-%s.png", b.shots, b.taken, name), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
	alerts := ask[[]string](b, `[...document.querySelectorAll('.alert-danger, .alert-error, .alert-warning, .toast-error')].filter(e => e.getClientRects().length).map(e => e.innerText.trim())`)
	b.mu.Lock()
	failures := b.failures
	b.failures = nil
	b.mu.Unlock()
	for _, wrong := range append(alerts, failures...) {
		if !slices.ContainsFunc(meant, func(m string) bool { return strings.Contains(wrong, m) }) {
			b.t.Errorf("%s: %s", name, wrong)
		}
	}
}

// quote makes a literal for a script.
func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string has one
	}
	return string(text)
}
