"""Expressions, filters, tests and methods of chat templates as transformers' sandbox of Jinja2 renders them; null where it raises."""

import datetime

from generator import write
from transformers.utils import chat_template_utils

PREAMBLE = """{%- set text = 'The quick brown fox' -%}
{%- set numbers = [3, 1, 2] -%}
{%- set people = [{'name': 'Ann', 'age': 30, 'tags': ['a']}, {'name': 'bob', 'age': 25}, {'name': 'Cy', 'age': 30}] -%}
{%- set tool = {'type': 'function', 'function': {'name': 'get', 'parameters': {'type': 'object', 'required': ['city'], \
'properties': {'city': {'type': 'string', 'enum': ['a', 'b']}, 'n': {'type': ['integer', 'null']}}}}} -%}
{%- set thought = '<think>\\nwhy\\n</think>\\n\\nso' -%}
"""

# Every test on every kind of value.
VALUES = ["none", "true", "false", "0", "1", "-2", "1.0", "2.5", "''", "'abc'", "'ABC'", "'1'", "[]", "[1]", "(1, 2)", "{}", "{'a': 1}", "missing",
          "range(2)", "[1] | map('string')", "namespace(a=1)", "tool.items()", "cycler('a')", "'a' | safe", "raise_exception"]
TESTS = ["none", "defined", "undefined", "boolean", "true", "false", "integer", "float", "number", "string", "sequence", "iterable", "mapping",
         "callable", "sameas none", "lower", "upper", "escaped", "eq 1", "in [1, 'abc']", "not none"]

EXPRESSIONS = r"""
tools is iterable and tools | length > 0
tools is none
tools is not none and tools is iterable
documents is defined
missing is iterable and missing | length > 0
none is iterable
'abc' is sequence
'\/'
'a\/b\.c\d\'q"'
"a\/b\"c'"
'\a\b\f\v\0\x41\u00e9\U0001F600\101\8'
'\N{BULLET}|\N{LATIN SMALL LETTER E WITH ACUTE}'
'tab\tnewline\nreturn\rbackslash\\'
'one\
two'
'é日本🙂'
'con' 'cat' "enation"
1_000 + 0x1f + 0b11 + 0o17
1.5e3 + 2E-1
-3 ** 2
2 ** 3 ** 2
2 ** -1
-2 * 3
- 2 | abs
7 // 2
-7 // 2
7 // -2.0
7 / 2
6 / 2
7 % 3
-7 % 3
7 % -3
7.5 % 2
7 % 2 * 3
3 * 7 % 4
10 - 7 % 4
1 / 0
1 // 0
1 % 0
1 + 2 * 3 - 4
1 + 1.0
0.1 + 0.2
1e16
1e15
1e-5
0.0001
1.0
100.0
123456789012345678901234567890
1e22 | int
true + true
true and 1
0 or 'b'
'' or none
not 1
not not ''
1 if true
1 if false
(1 if false) is defined
'a' if 0 else 'b' if 0 else 'c'
1 < 2 < 3
1 < 2 > 5
3 > 2 == true
1 == 1.0
true == 1
'1' == 1
none == false
[1, 2] == [1, 2]
[1] == (1,)
{'a': 1} == {'a': 1.0}
'a' < 'b'
[1, 2] < [1, 3]
1 < 'a'
none < 1
missing < 1
missing == 1
1 < 2 in [2]
1 == 1 < 2 != 3
not 1 < 2
not 'a' not in 'abc'
'a' in 'abc' == true
1 is lt 2
1 is lt 'a'
'b' is ge 'a'
2 is in [1, 2]
2 is not in [1, 2]
[1] < ['a']
(1, 2) < (1, 3)
{'a': 1} < {'b': 1}
true < 2
1.5 >= 1
'a' in namespace(a=1)
missing in 'abc'
'B' < 'a'
text | length > 3 and numbers | length <= 3
(1 < 2) == (2 > 1)
numbers[0] > numbers[1] if 2 in numbers else 5
'a' in 'abc'
'' in 'abc'
1 in 'abc'
1 in [1, 2]
'a' in {'a': 1}
1 in {'a': 1}
'a' not in ['b']
not 'a' in ['b']
none in [none]
'x' in missing
'x' in none
'x' in 5
'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'a'] ~ missing
'a' + 'b'
'a' + 1
1 + 'a'
'a' * 3
3 * 'a'
'a' * 0
'a' * -1
[1] * 3
[1] + [2, 'a']
(1,) + (2,)
[1] + (2,)
none + 'a'
missing + 'a'
missing
missing.a
missing[0]
tool.missing
tool['missing']
tool.missing.again
tool.function.name
tool['function']['name']
tool.function.parameters.properties.city.type
people[0].name
people[-1]['name']
people[5]
people[5].name
'abc'[0]
'abc'[-1]
'abc'[5]
'abc'[1:]
'abc'[:-1]
'abc'[::-1]
'abcdef'[1:5:2]
'abc'[5:]
'abc'[-10:2]
'日本語'[1:2]
numbers[1:]
numbers[::-1]
numbers[:-1]
numbers[0:2:1]
(1, 2, 3)[1:]
(1, 2, 3)
(1,)
()
[]
{}
[1, 'a', none, true, 1.5, 'it\'s', "q\"", 'b\\s', 'n\n']
{'a': 1, 'b': [1, {'c': none}], 1: 'x', 'é': 'ü'}
[[1, 2], (3,)]
{'a': 1,}
[1, 2,]
tool
none
true
1.0e10
'a' is defined
'%s is %d' % ('x', 5)
'%s' % 'x'
'%s' % 5
'%s' % none
'%s' % [1, 2]
'%r' % 'x'
'%5d|%-5d|%05d|%+d' % (1, 2, 3, 4)
'%.2f' % 3.14159
'%5.1f|%-8.3f|' % (2.25, 1.0)
'%e' % 12345.678
'%g|%g|%g' % (0.0001, 1e20, 1.5)
'%x|%X|%#x|%o' % (255, 255, 255, 8)
'%c%c' % ('a', 66)
'%%'  % ()
'%10s|%-10s|%.2s' % ('ab', 'cd', 'efgh')
'%(a)s-%(b)d' % {'a': 'x', 'b': 2}
'%s %s' % ('a',)
'%s' % ('a', 'b')
'%d' % 'x'
'%d' % 3.7
'%q' % 1
'%*d' % (5, 3)
'100%' % ()
text % ()
'a%sb' % text | upper
('%d' % 3) + 'a'
'%03d' % 7 ~ 'x'
loop
'x' | upper
'Straße' | upper
'ÀB' | lower
'hello world' | title
"it's a dog's life" | title
'hello-world foo_bar(baz)' | title
'hELLO wORLD' | capitalize
'' | capitalize
'  a b ' | trim
'xxaxx' | trim('x')
'--a--' | trim('-')
5 | trim
none | trim
missing | trim
none | upper
5 | upper
['a'] | upper
'aXbX' | replace('X', '-')
'aaa' | replace('a', 'b', 2)
'abc' | replace('', '-')
5 | replace('5', '6')
'abc' | length
'日本' | length
numbers | length
tool | length
none | length
5 | length
missing | length
numbers | count
numbers | first
numbers | last
[] | first
[] | last
'abc' | first
'abc' | last
tool | first
numbers | sort
numbers | sort(reverse=true)
['b', 'A', 'c'] | sort
['b', 'A', 'c'] | sort(case_sensitive=true)
people | sort(attribute='age') | map(attribute='name') | list
people | sort(attribute='age,name') | map(attribute='name') | list
people | sort(attribute='age', reverse=true) | map(attribute='name') | join(',')
[1, 'a'] | sort
numbers | reverse | list
'abc' | reverse
numbers | max
numbers | min
[] | max
['b', 'A'] | max
['b', 'A'] | min
people | max(attribute='age')
people | map(attribute='age') | max
numbers | sum
people | sum(attribute='age')
numbers | sum(start=10)
[] | sum
['a'] | sum
numbers | join
numbers | join(', ')
['a', none, 1.0, true] | join('-')
people | join(',', attribute='name')
'abc' | join('-')
none | join
missing | join(',')
tool | join(',')
numbers | list
'abc' | list
tool | list
none | list
5 | list
range(3) | list
range(1, 7, 2) | list
range(5, 0, -2) | list
range(3)
range(3)[1]
range(0)
range(3) | length
range(2.5)
numbers | unique | list
['a', 'A', 'b'] | unique | list
['a', 'A', 'b'] | unique(case_sensitive=true) | list
people | unique(attribute='age') | map(attribute='name') | list
people | map(attribute='name') | list
people | map(attribute='tags') | list
people | map(attribute='tags', default='none') | list
people | map('length') | list
['a', 'b'] | map('upper') | list
['a', 'b'] | map('upper') | join
['a ', ' b'] | map('trim') | list
['1', '2'] | map('int') | sum
['ab', 'cd'] | map('replace', 'a', 'x') | list
[[1, 2], [3]] | map('first') | list
[[1, 2], [3]] | map(attribute=0) | list
['a'] | map('nothing') | list
people | selectattr('age') | list | length
people | selectattr('age', 'equalto', 30) | map(attribute='name') | list
people | selectattr('age', '==', 30) | list | length
people | selectattr('age', 'eq', 30) | list | length
people | selectattr('age', 'gt', 26) | map(attribute='name') | list
people | selectattr('age', '>', 26) | list | length
people | selectattr('age', 'ne', 30) | first
people | selectattr('tags', 'defined') | list | length
people | selectattr('tags', 'undefined') | list | length
people | selectattr('name', 'in', ['Ann', 'Cy']) | list | length
people | rejectattr('age', 'equalto', 30) | map(attribute='name') | first
people | rejectattr('tags') | list | length
[tool] | selectattr('function.name', 'equalto', 'get') | list | length
[tool] | map(attribute='function.name') | list
[0, 1, 2, none, ''] | select | list
[0, 1, 2] | select('odd') | list
[0, 1, 2] | select('even') | list
[1, 2, 3, 4] | select('divisibleby', 2) | list
[1, 2, 3] | select('gt', 1) | list
[1, 2, 3] | select('in', [1, 3]) | list
[0, 1, none] | reject | list
[0, 1, none] | reject('none') | list
['a', 1] | select('string') | list
['a', 1] | reject('string') | list
people | groupby('age') | list | length
people | groupby('age') | map('first') | list
people | groupby('name') | map(attribute='grouper') | list
[1, 2, 3, 4, 5] | batch(2) | list
[1, 2, 3] | batch(2, 'x') | list
[1, 2, 3, 4, 5] | slice(2) | list
[1, 2, 3, 4, 5] | slice(3, 'x') | list
tool.function.parameters.properties | dictsort
{'b': 1, 'A': 2} | dictsort
{'b': 1, 'A': 2} | dictsort(true)
{'b': 1, 'a': 2} | dictsort(by='value')
{'b': 1, 'a': 2} | dictsort(reverse=true)
{'a': 1} | items | list
missing | items | list
none | items | list
missing | default('d')
none | default('d')
'' | default('d', true)
none | default('d', true)
none | default('d', boolean=true)
missing | default
tool.missing | default([]) | length
'x' | default('d')
missing | d('e')
'42' | int
'abc' | int
'abc' | int(7)
'0x1f' | int(base=16)
'3.9' | int
3.9 | int
-3.9 | int
' 5 ' | int
'1e3' | int
none | int
missing | int
true | int
[] | int
'12abc' | int(default=-1)
'1_000' | int
'1.5' | float
'abc' | float
'abc' | float(2.5)
none | float
3 | float
'inf' | float
'nan' | float
3.7 | round
3.14159 | round(2)
2.5 | round
3.5 | round
-2.5 | round
3.2 | round(0, 'ceil')
3.7 | round(method='floor')
42 | round
-5 | abs
5 | string
none | string
true | string
[1, 'a'] | string
1.0 | string
missing | string
'<a&"\'>' | escape
'<a>' | e
'<a>' | safe
'<b>x</b> <i>y</i>' | striptags
'a\nb\nc' | indent
'a\nb\n\nc' | indent(2)
'a\nb' | indent(2, true)
'a\nb' | indent(width=2, first=true)
'a\n\nb' | indent(2, blank=true)
'a\nb' | indent('> ')
'a\nb\n' | indent(2)
'' | indent(2, true)
text | truncate(9)
text | truncate(9, true)
text | truncate(9, false, '!')
text | truncate(11, true, '', 0)
text | truncate(16, false, '...', 5)
text | truncate(14, leeway=0)
text | truncate
'short' | truncate(3)
'abcdefghijklmn' | truncate(8)
'abcdefghijklmn' | truncate(8, leeway=0)
text | truncate(2, true, '...')
text | wordcount
'' | wordcount
'one two three four' | wordwrap(9)
'averyverylongword' | wordwrap(5)
'averyverylongword x' | wordwrap(5, false)
'a\nb c' | wordwrap(3)
'ab' | center(6) ~ '|'
'ab' | center(5) ~ '|'
'ab' | center ~ '|'
'%s %s' | format('a', 1)
'%(x)s' | format(x=5)
'%.2f' | format(2.345)
'%s' | format
1000 | filesizeformat
1 | filesizeformat
13000000 | filesizeformat
1048576 | filesizeformat(true)
'a b/c?d=é&' | urlencode
{'a': 1, 'b c': 'd'} | urlencode
{'a': 'x', 'b': none} | xmlattr
tool | attr('function')
text | attr('upper')
numbers | pprint
tool | pprint
'a' | pprint
none | tojson
true | tojson
'é<b>\'"\n\u0001/' | tojson
1.0 | tojson
1e16 | tojson
[1, 2.5, 'a'] | tojson
(1, 2) | tojson
{} | tojson
[] | tojson
{'b': 1, 'a': [1, {'c': none}]} | tojson
{'b': 1, 'a': 2} | tojson(sort_keys=true)
{'a': [1, {}], 'b': []} | tojson(indent=2)
{'a': [1]} | tojson(indent=0)
{'a': [1]} | tojson(indent='\t')
{'a': [1]} | tojson(indent=none)
{'a': 1, 'b': 2} | tojson(separators=(',', ':'))
{'a': 1, 'b': 2} | tojson(separators=[',', ':'])
'é🙂' | tojson(ensure_ascii=true)
'é' | tojson(true)
{'a': 1} | tojson(false, 2)
{1: 'a', none: 2, true: 3, 1.5: 4} | tojson
missing | tojson
range(2) | tojson
tool | tojson
tool | tojson(indent=4)
tool.function.parameters | tojson(ensure_ascii=False)
'\x7f\u2028' | tojson
1e400 | tojson
'a' | tojson | length
'a' | nothing
'a' is nothing
4 is divisibleby 2
4 is divisibleby(3)
3 is odd
3 is even
2.0 is even
'a' is eq 'a'
'a' is equalto('a')
1 is ne 2
1 is lt 2
1 is lessthan 2
2 is ge 2
2 is greaterthan 1
'a' is in 'abc'
none is sameas none
1 is sameas 1
true is sameas true
'upper' is filter
'nope' is filter
'odd' is test
'nope' is test
'a' is string and 1 is number
'a' is not string
not 'a' is string
1 is integer and 1.5 is float
text.upper()
text.lower()
text.title()
text.capitalize()
text.swapcase()
'ß'.casefold()
text.split()
text.split(' ')
text.split(' ', 1)
text.split(maxsplit=1)
text.split(' ', maxsplit=2)
text.split(sep='o')
'a,,b'.split(',')
''.split()
''.split(',')
' a  b '.split()
' a  b  c '.split(none, 1)
'abc'.split('')
text.rsplit(' ', 1)
text.rsplit(' ')
text.rsplit()
text.rsplit(none, 1)
text.rsplit(maxsplit=2)
'a.b.c'.rsplit('.', 1)[0]
'a\nb\r\nc\rd'.splitlines()
'a\nb\n'.splitlines(true)
'a\x0bb\x0cc\u2028d\x85e'.splitlines()
'a\n'.splitlines()
''.splitlines()
thought.split('</think>')[-1].lstrip('\n')
thought.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n')
thought.partition('</think>')
thought.rpartition('\n')
'abc'.partition('x')
'abc'.rpartition('x')
'abc'.partition('')
'prefix-a'.removeprefix('prefix-')
'a.txt'.removesuffix('.txt')
'abc'.removeprefix('x')
'abc'.removesuffix('')
'  a '.strip()
'xyaxy'.strip('xy')
'  a '.lstrip() ~ '|'
'  a '.rstrip() ~ '|'
'\u00a0\u3000a\x1c\x85'.strip()
'a'.strip(none)
'aXbX'.replace('X', '-')
'aXbX'.replace('X', '-', 1)
'abc'.replace('', '-')
'abc'.replace('b')
text.startswith('The')
text.startswith(('a', 'T'))
text.startswith('quick', 4)
text.startswith('q', 4, 5)
text.endswith('fox')
text.endswith(('dog', 'fox'))
text.startswith(['T'])
text.find('quick')
text.find('zzz')
text.find('o', 13)
text.rfind('o')
text.index('quick')
text.index('zzz')
text.rindex('o')
text.count('o')
text.count('')
'aaaa'.count('aa')
'日本語'.find('語')
'a'.isalpha()
'é1'.isalnum()
'12'.isdigit()
'²'.isdigit()
'½'.isnumeric()
'½'.isdecimal()
''.isdigit()
'aB'.islower()
'AB1'.isupper()
' \n'.isspace()
''.isspace()
'Abc Def'.istitle()
'abc'.isascii()
'a1_'.isidentifier()
'a\n'.isprintable()
','.join(['a', 'b'])
','.join([])
','.join('abc')
','.join([1])
'-'.join(people | map(attribute='name'))
'7'.zfill(3)
'-7'.zfill(4)
'ab'.ljust(5) ~ '|'
'ab'.rjust(5, '*')
'ab'.center(5, '-')
'ab'.center(6, '-')
'a\tb'.expandtabs(4)
'a{}b{}'.format(1, 'x')
'{0}{1}{0}'.format('a', 'b')
'{x}'.format(x=1)
'{:>5}|{:<5}|{:^5}'.format(1, 2, 3)
'{:.2f}'.format(3.14159)
'{:,}'.format(1234567)
'{:05d}'.format(42)
'{!r}'.format('a')
'{!r:>6}|{!s:<4}|'.format('a', 1)
'{0!r}{0}'.format("it's")
'{:{}}|{:{}.{}f}'.format(1, 5, 2.345, 8, 1)
'{0}{}'.format(1, 2)
'{:>5}'.format([1])
'{}'.format([1, 'a', none, true])
'{x[0]}{x[1].a}'.format(x=[1, {'a': 2}])
'{'.format()
'a}'.format()
'{:q}'.format(1)
'{:>4}|{:<6}|{:^7}'.format('a', true, 'b')
'{a[b]}'.format(a={'b': 1})
'{{}}'.format()
'{}'.format()
'{.__class__}'.format(1)
'a'.encode()
'abc'.translate({97: 'x'})
text.nothing()
text.__class__
''.__class__.__mro__
(1).real
tool.keys() | list
tool.values() | list | length
tool.items() | list | length
tool.keys()
tool.items()
{'a': 1}.values()
tool.get('type')
tool.get('missing')
tool.get('missing', 'd')
tool.get('missing', {}).get('x', 5)
{'items': 5}.items() | list
{'items': 5}.items
{'items': 5}['items']
tool.copy().type
tool.pop('type')
tool.update({'a': 1})
tool.setdefault('a', 1)
{'keys': 1}.keys
numbers.index(1)
numbers.index(9)
numbers.count(1)
numbers.copy()
numbers.append(4)
numbers.pop()
numbers.sort()
(1, 2, 1).count(1)
(1, 2).index(2)
dict(a=1, b='x')
dict({'a': 1}, b=2)
dict([('a', 1)])
namespace(a=1).a
namespace(a=1)
namespace(a=1).missing
namespace({'a': 1}, b=2).b
namespace(_a=1)
cycler('a', 'b').next()
cycler('a', 'b').current
joiner(', ')()
lipsum(n=0)
range(10**9) | length
strftime_now('%d %b %Y')
strftime_now('%Y-%m-%d %H:%M %A %B %j %p')
strftime_now is defined
raise_exception('no')
bos_token + eos_token
messages[0].content
messages[0]['role']
messages | length
messages[-1].role == 'assistant'
messages[1:] | map(attribute='role') | list
messages | selectattr('role', 'equalto', 'user') | list | length
messages | map(attribute='content') | join('\n')
messages[0].get('tool_calls')
messages[0].tool_calls is defined
'tool_calls' in messages[0]
'role' in messages[0]
messages[0] | tojson
messages | tojson
messages[0].keys() | list
messages[0].items() | list
messages[0]
messages[0].content is string
messages[0] is mapping
add_generation_prompt
add_generation_prompt is defined and not add_generation_prompt
messages | first == messages[0]
messages | last
messages | reverse | map(attribute='role') | list
messages | rejectattr('role', 'equalto', 'system') | list | length
(messages | first).content[0] | upper
messages.0.role
messages[0]['content'][:1]
messages | groupby('role') | map('first') | list
text | replace(' ', '') | length > 3 and not none
text[text.find('quick'):]
text.split(' ')[1:] | join(' ')
'x' if text is string and text | length > 100 else text.split()[-1]
(numbers | map('string') | join(',')).split(',') | map('int') | list
tool.function.parameters.required | join(', ')
tool.function.parameters.properties.items() | list
tool.function.parameters.properties.n.type | join(' | ')
tool.function.parameters.properties.n.type is string
'function' if tool.type == 'function' else tool
tool.function | items | map('first') | list
{'a': 1} | length + 1
[1, 2] | length == 2
-numbers[0] | abs
'a' ~ 'b' | upper
'a' + 'b' | upper
1 + 2 | string
not 'a' == 'b'
'a' == 'a' and 'b' != 'c' or false
1 in [1] and 2 in [2]
[x for x in numbers]
lambda
'unclosed
1 +
""".strip("\n")

STATEMENTS = {
    "cycler": "{% set c = cycler('a', 'b') %}{% for n in range(5) %}{{ c.next() }}{{ c.current }}{% endfor %}{% set _ = c.reset() %}{{ c.next() }}",
    "joiner": "{% set j = joiner(' | ') %}{% for n in numbers %}{{ j() }}{{ n }}{% endfor %}{% set k = joiner() %}{{ k() }}1{{ k() }}2",
    "loop variables": "{% for n in numbers %}{{ [loop.index, loop.index0, loop.revindex, loop.revindex0, loop.first, loop.last, loop.length, loop.previtem, loop.nextitem, loop.depth, loop.depth0, loop.cycle('x', 'y'), loop.changed(n)] }}\n{% endfor %}",
    "a filter of a loop": "{% for n in numbers if n > 1 %}{{ loop.index }}:{{ n }}{% if not loop.last %},{% endif %}{% else %}none{% endfor %}",
    "an empty loop": "{% for n in [] %}{{ n }}{% else %}none{% endfor %}",
    "a loop over none": "{% for n in none %}{{ n }}{% endfor %}",
    "a loop over a number": "{% for n in 5 %}{{ n }}{% endfor %}",
    "a loop over what is none": "{% for n in tools if n %}{{ n }}{% else %}none{% endfor %}",
    "a loop over nothing": "{% for n in missing %}{{ n }}{% else %}none{% endfor %}",
    "a loop over pairs": "{% for key, value in tool.items() %}{{ key }}={{ value }};{% endfor %}",
    "a loop over a map": "{% for key in tool %}{{ key }};{% endfor %}",
    "a loop over a text": "{% for c in 'añb' %}{{ c }}.{% endfor %}",
    "a loop over a tuple without parentheses": "{% for n in 1, 2 %}{{ n }}{% endfor %}",
    "pairs of pairs": "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "a recursive loop": "{% for n in [[1, [2]], 3] recursive %}{% if n is iterable %}({{ loop(n) }}){% else %}{{ n }}{% endif %}{% endfor %}",
    "break and continue": "{% for n in range(9) %}{% if n == 2 %}{% continue %}{% endif %}{% if n == 5 %}{% break %}{% endif %}{{ n }}{% endfor %}",
    "the scope of a loop": "{% set x = 1 %}{% for n in numbers %}{% set x = n %}{% endfor %}{{ x }}",
    "the scope of an if": "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "a namespace": "{% set ns = namespace(x=1, found=false) %}{% for n in numbers %}{% set ns.x = ns.x + n %}{% if n == 1 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.x }} {{ ns.found }}",
    "a list in a namespace": "{% set ns = namespace(seen=[]) %}{% for n in numbers %}{% set ns.seen = ns.seen + [n] %}{% endfor %}{{ ns.seen }} {{ ns.seen | length }} {{ ns.seen is sequence }} {{ ns.seen | tojson }}",
    "an attribute of a map": "{% set tool.x = 1 %}",
    "two at once": "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "two of a text": "{% set a, b = 'x-y'.split('-') %}{{ a }}{{ b }}",
    "a tuple": "{% set t = 1, 2 %}{{ t }}",
    "a set block": "{% set x %}a{{ 1 }}{% endset %}{{ x }}{{ x | length }}{{ x is string }}",
    "a filtered set block": "{% set x | upper %}a{{ 'b' }}{% endset %}{{ x }}",
    "a macro": "{% macro m(a, b='d', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=2, a=1) }}{{ m() }}{{ m(1) | length }}",
    "a macro's rest": "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "a macro's positional rest": "{% macro m(a, b=2) -%} {{ a }}{{ b }}{% for v in varargs %}[{{ v }}]{% endfor %} {%- endmacro -%} {{ m(1) }}|{{ m(1, 3, 4, 5) }}",
    "a macro's named rest": "{% macro m() %}{% for k, v in kwargs.items() %}{{ k }}={{ v }};{% endfor %}{% endmacro %}\n{{ m(x=1, y='b') }}{{ m() }}{{ m is callable }}",
    "a macro with a rest that calls itself": "{% macro m(n) %}{{ n }}{% if varargs %}{{ m(*varargs) }}{% endif %}{% endmacro %}{{ m(1, 2, 3) }}",
    "a macro with a rest and a caller": "{% macro m() %}{{ varargs }}<{{ caller() }}>{% endmacro %}{% call m(1) %}x{% endcall %}",
    "a macro as a value": "{% macro m() %}{% endmacro %}{{ m is callable }} {{ m is mapping }} {{ m is iterable }}",
    "too many arguments": "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "a macro that calls itself": "{% macro m(x) %}{% if x is mapping %}{% for k, v in x.items() %}{{ k }}:{{ m(v) }};{% endfor %}{% else %}{{ x }}{% endif %}{% endmacro %}{{ m(tool) }}",
    "a caller": "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}x{% endcall %}",
    "a caller with an argument": "{% macro m() %}<{{ caller(5) }}>{% endmacro %}{% call(n) m() %}{{ n }}{% endcall %}",
    "a filter block": "{% filter upper %}abc{{ 'd' }}{% endfilter %}",
    "with": "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}",
    "raw": "{% raw %}{{ x }}{% if %}{% endraw %}",
    "raw with trimming": "a {%- raw -%} {{ x }} {%- endraw -%} b",
    "a comment": "a{# b {{ c }} {% d %} #}e{#- f -#} g",
    "trimming": "a \n {%- if true -%} \n b \n {%- endif %} \n c {{- ' d ' -}} e",
    "kept white space": "  {%+ if true +%}\n  x\n  {%+ endif %}\n",
    "blocks on lines of their own": "a\n  {% if true %}\n  b\n  {% endif %}\nc\n",
    "an expression on a line of its own": "a\n  {{ 1 }}\nb\n",
    "a comment on a line of its own": "a\n  {# x #}\nb\n",
    "the last line break": "a\n\n",
    "carriage returns": "a\r\n{% if true %}\r\nb{% endif %}\rc",
    "elif": "{% if false %}a{% elif 0 %}b{% elif 'x' %}c{% else %}d{% endif %}",
    "do": "{% do numbers %}",
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as x %}",
    "generation": "{% generation %}a{{ 1 }}{% endgeneration %}b",
    "the scope of generation": "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x is defined }}",
    "a block": "{% block b %}x{% endblock %}",
    "autoescape": "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "braces in text": "{ } {{ '}}' }} {{ '{%' }} {{ {'a': {'b': 1}}['a'] }} %} }}",
    "a generic loop of tools": "{%- for t in [tool] %}{{- '\\n' }}{{- t | tojson }}{%- endfor %}",
    "arguments": "{% set call = {'arguments': {'x': 1, 'y': 'z', 'w': [1]}} %}{% for k, v in call.arguments | items %}{{ '<' ~ k ~ '>' }}{{ v | tojson if v is mapping or (v is sequence and v is not string) else v | string }}{% endfor %}",
    "reasoning": "{% if '</think>' in thought %}{% set reasoning = thought.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{% set said = thought.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ reasoning }}|{{ said }}",
    "the last question": "{% set ns = namespace(multi=true, last=messages | length - 1) %}{% for m in messages[::-1] %}{% set i = (messages | length - 1) - loop.index0 %}{% if ns.multi and m.role == 'user' %}{% set ns.multi = false %}{% set ns.last = i %}{% endif %}{% endfor %}{{ ns.last }}",
    "a line of a line statement": "# for x in y\n## comment\n",
    "nested quotes": "{{ \"a 'b' \" ~ 'c \"d\"' }}",
    "an unknown tag": "{% nothing %}",
    "an open tag": "{% if true %}a",
    "an open expression": "{{ 1 ",
    "a stray end": "{% endif %}",
    "self": "{{ self }}",
    "an exception of two lines": "{{ raise_exception('a\\nb') }}",
}
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


class Now(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 13, 5)


def render(source):
    chat_template_utils._compile_jinja_template.cache_clear()
    try:
        return chat_template_utils.render_jinja_template([MESSAGES], chat_template=source, bos_token="<s>", eos_token="</s>")[0][0]
    except Exception:
        return None


def expressions():
    """One a line; a line that ends in a backslash goes on."""
    return EXPRESSIONS.replace("\\\n", "\0").replace("\n", "\x01").replace("\0", "\\\n").split("\x01")


if __name__ == "__main__":
    chat_template_utils.datetime = Now
    cases = [f"{value} is {test}" for value in VALUES for test in TESTS]
    cases += [f"{value} | {filter}" for value in VALUES for filter in ("string", "length", "list", "tojson", "int", "default('d', true)", "first")]
    sources = [(expression, f"{PREAMBLE}{{{{ {expression} }}}}") for expression in expressions() + cases]
    sources += [(name, PREAMBLE + source) for name, source in STATEMENTS.items()]
    cases = [{"name": name, "source": source.removeprefix(PREAMBLE), "rendered": render(source)} for name, source in sources]
    # An object without a text of its own is written with its address.
    cases = [case for case in cases if " at 0x" not in (case["rendered"] or "")]
    write(__file__, ["transformers", "jinja2"], preamble=PREAMBLE, messages=MESSAGES, cases=cases)
