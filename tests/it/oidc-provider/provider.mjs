// The identity provider of a plant, for tests: oidc-provider, which is certified, on loopback. With the files of a certificate
// and its key as arguments it is behind TLS, too. Says on standard output what its issuer is and where it is without TLS, and
// ends with its standard input. Beside what a provider does, it can be told, below /test/, to
//   rotate          use other keys from now on
//   mint            sign what a provider would not, with its own keys or wrongly: { header, claims, how }
//   counts          say how often its discovery document and its keys were asked for
//   moved?to=URI    say in the discovery document that its keys are there

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { createHmac, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { Provider } from 'oidc-provider';
import * as jose from 'jose';

const AUDIENCE = 'lineproof';
const counts = { discovery: 0, jwks: 0 };
let issuer;
let keys;
let listener;
let moved;
let generation = 0;

const kinds = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
};

function start() {
  generation += 1;
  keys = Object.fromEntries(Object.entries(kinds).map(([alg, make]) => {
    const { privateKey } = make();
    return [alg, { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: `${alg}-${generation}` }];
  }));
  const client = (alg) => ({
    client_id: `mes-${alg}`,
    client_secret: 'for-tests-only',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  });
  const provider = new Provider(issuer, {
    jwks: { keys: Object.values(keys) },
    clients: Object.keys(kinds).map(client),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource, client) => ({
          scope: 'inspect',
          audience: resource.replace(/^urn:/, ''),
          accessTokenFormat: 'jwt',
          accessTokenTTL: 300,
          jwt: { sign: { alg: client.clientId.replace('mes-', '') } },
        }),
      },
    },
    extraTokenClaims: () => ({ realm_access: { roles: ['QA Nord', 'somebody'] }, name: 'MES' }),
  });
  listener = provider.callback();
}

// A JWS with whatever is asked for, and as wrongly as it is asked for.
async function mint({ header = {}, claims = {}, how = 'ES256' }) {
  const now = Math.floor(Date.now() / 1000);
  const said = { iss: issuer, aud: AUDIENCE, sub: 'anna', iat: now, exp: now + 300, ...claims };
  for (const [name, value] of Object.entries(said)) {
    if (value === null) delete said[name];
  }
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  if (how === 'none') return `${part({ alg: 'none', typ: 'at+jwt', ...header })}.${part(said)}.`;
  if (how === 'HS256') {
    // The public key, which everybody knows, taken for a shared secret.
    const secret = createPublicKey({ key: keys.RS256, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
    const text = `${part({ alg: 'HS256', typ: 'at+jwt', kid: keys.RS256.kid, ...header })}.${part(said)}`;
    return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
  }
  const stranger = how === 'stranger';
  const alg = stranger ? 'ES256' : how;
  const key = stranger ? generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey : await jose.importJWK(keys[alg], alg);
  return new jose.SignJWT(said).setProtectedHeader({ alg, typ: 'at+jwt', kid: keys[alg].kid, ...header }).sign(key);
}

async function body(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return parts.length ? JSON.parse(Buffer.concat(parts).toString()) : {};
}

async function handle(request, answer) {
  const { pathname, searchParams } = new URL(request.url, issuer);
  if (pathname === '/test/rotate') {
    start();
    answer.end();
  } else if (pathname === '/test/mint') {
    answer.end(await mint(await body(request)));
  } else if (pathname === '/test/counts') {
    answer.end(JSON.stringify(counts));
  } else if (pathname === '/test/moved') {
    moved = searchParams.get('to');
    answer.end();
  } else {
    if (pathname.startsWith('/.well-known/')) counts.discovery += 1;
    if (pathname === '/jwks') counts.jwks += 1;
    if (pathname.startsWith('/.well-known/') && moved) {
      answer.end(JSON.stringify({ issuer, jwks_uri: moved }));
    } else {
      listener(request, answer);
    }
  }
}

const listening = (server) => new Promise((done) => {
  server.listen(0, '127.0.0.1', () => done(server.address().port));
});

const plain = `http://127.0.0.1:${await listening(createServer(handle))}`;
const [cert, key] = process.argv.slice(2).map((file) => readFileSync(file));
issuer = cert ? `https://localhost:${await listening(createTlsServer({ cert, key }, handle))}` : plain;
start();
console.log(`issuer ${issuer} plain ${plain}`);
process.stdin.resume().on('end', () => process.exit(0));
