// The page of a VNC console. The token stands in ?path=?token=TOKEN, as Nova has it.
import RFB from '/console/novnc/core/rfb.js';

const path = new URLSearchParams(location.search).get('path') || '';
const status = (text) => { document.getElementById('status').textContent = text; };
const rfb = new RFB(document.getElementById('screen'),
  `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/${path.replace(/^\//, '')}`, { wsProtocols: ['binary'] });
rfb.scaleViewport = true;
rfb.addEventListener('desktopname', (e) => { document.title = e.detail.name; });
rfb.addEventListener('connect', () => { status('Connected'); rfb.focus(); });
rfb.addEventListener('disconnect', () => status('Disconnected: the console has ended, or its URL has expired. Ask for a new one.'));
document.getElementById('paste').addEventListener('click', () => {
  const text = window.prompt('Text to type:');
  if (text) { rfb.clipboardPasteFrom(text); }
  rfb.focus();
});
