// What package.json asks for, as NAME=VALUE lines for bin/compile; or `refuse=WHY`.
// Arguments: BUILD, the path of npm, words that belong to the cache's key.
'use strict'
const crypto = require('crypto')
const fs = require('fs')
const path = require('path')

const [build, npm, ...words] = process.argv.slice(2)
const LOCKS = [
  ['npm', 'package-lock.json'],
  ['npm', 'npm-shrinkwrap.json'],
  ['yarn', 'yarn.lock'],
  ['pnpm', 'pnpm-lock.yaml'],
]
const DEPENDENCIES = ['dependencies', 'devDependencies', 'optionalDependencies', 'peerDependencies']
const SHAPES = ['overrides', 'resolutions', 'pnpm', 'bundleDependencies', 'bundledDependencies']
const INSTALL_SCRIPTS = ['preinstall', 'install', 'postinstall', 'preprepare', 'prepare', 'postprepare']

class Refusal extends Error {}

const there = (name) => fs.existsSync(path.join(build, name))
const read = (name) => fs.readFileSync(path.join(build, name), 'utf8')
const table = (value) => (value && typeof value === 'object' && !Array.isArray(value) ? value : {})

function manifest() {
  let parsed
  try {
    parsed = JSON.parse(read('package.json').replace(/^\uFEFF/, ''))
  } catch (error) {
    throw new Refusal(`package.json is not JSON: ${error.message.replace(/\s+/g, ' ')}`)
  }
  if (table(parsed) !== parsed) throw new Refusal('package.json is not an object')
  return parsed
}

// npm's own semver, wherever this npm keeps it.
function semver() {
  const home = npm && path.join(fs.realpathSync(npm), '..', '..', 'node_modules', 'semver')
  for (const place of [home, 'semver', '/usr/share/nodejs/semver']) {
    try {
      return require(place)
    } catch {
      continue
    }
  }
  return null
}

function checkEngine(engines) {
  const range = table(engines).node
  if (range === undefined) return ''
  const { validRange, satisfies } = semver() || {}
  if (!satisfies) return 'engines.node is not checked: this npm has no semver'
  if (typeof range !== 'string' || validRange(range) === null) {
    throw new Refusal(`package.json: engines.node is ${JSON.stringify(range)}, which is no version range`)
  }
  if (!satisfies(process.version, range)) {
    throw new Refusal(`package.json asks for node ${range}; this ship has ${process.version.slice(1)}`)
  }
  return ''
}

// [manager, version or '', lock file or '']
function manager(pkg) {
  const locks = LOCKS.filter(([, file]) => there(file))
  if (pkg.packageManager !== undefined) {
    const match = /^(npm|yarn|pnpm)@(\d+\.\d+\.\d+(?:-[\w.]+)?)(?:\+[\w.]+)?$/.exec(pkg.packageManager)
    if (!match) throw new Refusal(`package.json: packageManager ${JSON.stringify(pkg.packageManager)} is not npm, yarn or pnpm with a version`)
    return [match[1], match[2], (locks.find(([name]) => name === match[1]) || [])[1] || '']
  }
  const names = new Set(locks.map(([name]) => name))
  if (names.size > 1) {
    throw new Refusal(`${locks.map(([, file]) => file).join(' and ')} are both there: keep one, or set packageManager`)
  }
  return locks.length ? [locks[0][0], '', locks[0][1]] : ['npm', '', '']
}

// Which release of yarn or pnpm reads this lock file.
function toolFor(name, version, lock) {
  if (name === 'npm') return ''
  if (name === 'pnpm') {
    const major = /^lockfileVersion: *'?([0-9]+)/m.exec(lock)
    return `pnpm@${version || { 5: '7', 6: '8' }[(major || [])[1]] || '9'}`
  }
  const berry = version ? !version.startsWith('1.') : /^__metadata:/m.test(lock)
  return berry ? `@yarnpkg/cli-dist@${version || '4'}` : `yarn@${version || '1'}`
}

// A tree is kept only if nothing but the lock and these tables of package.json decides what is in it.
function ownSources(pkg, lock) {
  const scripts = table(pkg.scripts)
  const script = INSTALL_SCRIPTS.find((name) => scripts[name])
  if (script) return `package.json has a "${script}" script`
  if (pkg.workspaces || there('pnpm-workspace.yaml')) return 'it has workspaces'
  const values = DEPENDENCIES.flatMap((name) => Object.values(table(pkg[name])))
  if (values.some((value) => /^(file|link|portal|workspace|patch):|^[./~]/.test(value))) {
    return 'package.json names dependencies inside the app'
  }
  return /^ *"link": true/m.test(lock) ? 'the lock file has links' : ''
}

function plan() {
  const pkg = manifest()
  const scripts = table(pkg.scripts)
  const note = checkEngine(pkg.engines)
  const [name, version, lockFile] = manager(pkg)
  const lock = lockFile ? read(lockFile) : ''
  const tool = toolFor(name, version, lock)
  const berry = tool.startsWith('@yarnpkg/')
  const buildScript = ['heroku-postbuild', 'build'].find((script) => scripts[script]) || ''
  const hash = crypto.createHash('sha256')
  const config = ['.npmrc', '.yarnrc', '.yarnrc.yml', '.pnpmfile.cjs'].filter(there).map(read)
  const tables = [...DEPENDENCIES, ...SHAPES].map((key) => pkg[key])
  hash.update(JSON.stringify([words, process.version, process.arch, tool, buildScript !== '', lockFile, lock, config, tables]))
  const start = typeof scripts.start === 'string' ? scripts.start : ''
  return {
    node: process.version.slice(1),
    note,
    manager: berry ? 'berry' : name,
    tool,
    lock: lockFile,
    uncached: berry ? 'yarn 2 and later' : ownSources(pkg, lock),
    build_script: buildScript,
    prebuild: scripts['heroku-prebuild'] ? '1' : '',
    dependencies: DEPENDENCIES.slice(0, 3).some((key) => Object.keys(table(pkg[key])).length) || pkg.workspaces ? '1' : '',
    dev: Object.keys(table(pkg.devDependencies)).length ? '1' : '',
    install_scripts: INSTALL_SCRIPTS.some((script) => scripts[script]) ? '1' : '',
    key: hash.digest('hex'),
    start: start && directly(scripts, start) ? start : start && 'npm start',
  }
}

// npm in front of the app costs 0.3 s and 60 MB; it is left out where it adds nothing.
function directly(scripts, start) {
  return !scripts.prestart && !scripts.poststart && !/npm_|[\x00-\x1f\x7f]/.test(start)
}

let result
try {
  result = plan()
} catch (error) {
  if (!(error instanceof Refusal)) throw error
  result = { refuse: error.message }
}
for (const [name, value] of Object.entries(result)) console.log(`${name}=${value}`)
