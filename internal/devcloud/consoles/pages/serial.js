// The page of a serial console: lines of text, no terminal. The token stands in ?token=TOKEN.
const text = document.getElementById('text');
const status = (s) => { document.getElementById('status').textContent = s; };
const ws = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/console/serial${location.search}`, ['binary']);
ws.binaryType = 'arraybuffer';
const decoder = new TextDecoder();
const encoder = new TextEncoder();
const keep = 200000; // characters
let shown = '';
let rest = ''; // the beginning of a sequence that goes on

function show(said) {
  said = (rest + said).replace(/\x1b\[[0-9;?<=>]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b[()#][0-9A-Za-z]|\x1b[=>78cDEHM]/g, '');
  const open = said.lastIndexOf('\x1b');
  rest = open >= 0 && said.length - open < 64 ? said.slice(open) : '';
  for (const c of open >= 0 ? said.slice(0, open) : said) {
    if (c === '\b') { shown = shown.slice(0, -1); } else if (c === '\n' || c === '\t' || c >= ' ') { shown += c; }
  }
  shown = shown.slice(-keep);
  text.textContent = shown;
  text.scrollTop = text.scrollHeight;
}

const keys = {
  Enter: '\r', Backspace: '\x7f', Tab: '\t', Escape: '\x1b', Delete: '\x1b[3~', Home: '\x1b[1~', End: '\x1b[4~',
  ArrowUp: '\x1b[A', ArrowDown: '\x1b[B', ArrowRight: '\x1b[C', ArrowLeft: '\x1b[D',
};
const send = (s) => { if (ws.readyState === WebSocket.OPEN) { ws.send(encoder.encode(s)); } };

ws.onopen = () => { status('Connected'); text.focus(); };
ws.onmessage = (e) => show(decoder.decode(e.data, { stream: true }));
ws.onclose = () => status('Disconnected: the console has ended, or its URL has expired. Ask for a new one.');
text.addEventListener('keydown', (e) => {
  let s = keys[e.key] || (e.key.length === 1 ? e.key : '');
  if (e.metaKey || !s) { return; }
  if (e.ctrlKey && e.key.length === 1) { s = String.fromCharCode(e.key.toUpperCase().charCodeAt(0) & 0x1f); }
  e.preventDefault();
  send((e.altKey ? '\x1b' : '') + s);
});
text.addEventListener('paste', (e) => { send(e.clipboardData.getData('text').replace(/\r?\n/g, '\r')); e.preventDefault(); });
