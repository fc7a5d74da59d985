// Keeps the whole folder on the device, so that the page works without a network. FILES and VERSION stand above.

const NAME = `handlens-${VERSION}`;
const isOurs = (url) => url.href.startsWith(self.registration.scope);

// A page may use several threads only where its own files say that it stands alone.
async function alone(answer) {
  const headers = new Headers(answer.headers);
  headers.set("cross-origin-opener-policy", "same-origin");
  headers.set("cross-origin-embedder-policy", "require-corp");
  headers.set("cross-origin-resource-policy", "same-origin");
  return new Response(await answer.arrayBuffer(), { status: answer.status, headers });
}

async function tell(message) {
  for (const client of await self.clients.matchAll({ includeUncontrolled: true })) client.postMessage(message);
}

async function keepAll() {
  const cache = await caches.open(NAME);
  for (const [name, bytes] of Object.entries(FILES)) {
    const answer = await fetch(name, { cache: "no-cache" });
    if (!answer.ok) throw new Error(`${name}: status ${answer.status}`);
    const kept = await alone(answer);
    const size = (await kept.clone().arrayBuffer()).byteLength;
    if (size !== bytes) throw new Error(`${name}: ${size} bytes, ${bytes} expected`);
    await cache.put(new URL(name, self.registration.scope), kept);
    await tell({ kind: "kept", name, bytes });
  }
}

self.addEventListener("install", (event) => event.waitUntil(keepAll().then(() => self.skipWaiting())));

self.addEventListener("activate", (event) => {
  const dropOthers = async () => {
    const names = (await caches.keys()).filter((name) => name.startsWith("handlens-") && name !== NAME);
    await Promise.all(names.map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(dropOthers());
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || !isOurs(url)) return;
  const wanted = url.href === self.registration.scope ? `${url.href}index.html` : url.href;
  event.respondWith(caches.open(NAME).then(async (cache) => (await cache.match(wanted)) ?? fetch(event.request)));
});
