# Whether the ship's ruby is the one that the Gemfile asks for; exit 1 and a sentence if not.
# Run without the app's gems: `ruby --disable-gems` would not know versions.
require 'rubygems'

lock = File.exist?('Gemfile.lock') ? File.read('Gemfile.lock') : ''
gemfile = File.read('Gemfile')
wanted = gemfile[/^\s*ruby[\s(]+((?:["'][^"']*["'](?:\s*,\s*)?)+)/, 1]
exit unless wanted || lock.include?("RUBY VERSION\n")

begin
  given = wanted ? wanted.scan(/["']([^"']*)["']/).flatten : []
  asked = Gem::Requirement.new(given)
rescue Gem::Requirement::BadRequirementError
  puts "the Gemfile's ruby #{given.join(', ')} is no version range"
  exit 1
end
exit if given.empty? || asked.satisfied_by?(Gem::Version.new(RUBY_VERSION))
puts "the Gemfile asks for ruby #{given.join(', ')}; this ship has #{RUBY_VERSION}"
exit 1
